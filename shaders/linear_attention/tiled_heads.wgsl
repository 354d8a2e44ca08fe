// Causal linear attention in tiles with the state in registers: o = phi(Q) S + (mask . phi(Q) psi(K)T) V over the sum of the
// weights, then S += psi(K)T V, chunk after chunk. q, k, v and o are all that it moves.
//
// One workgroup owns V_CHUNKS chunks of the value dims of one (batch, query head) and walks the tokens in order, ROWS a
// step. How its WIDTH x HEIGHT invocations share a tile is told in shared/tile.wgsl: its rows are queries for o, and features for S.
// Workgroup memory: that of shared/tile.wgsl, and 16 * ROW_GROUPS + 16 bytes. Features: none.
// Source: Katharopoulos et al., "Transformers are RNNs", 2020; Sun et al., "Retentive Network", 2023, section 2.2 (chunks).
const WIDTH: u32 = 16u;
const HEIGHT: u32 = 8u;
const GROUPS: u32 = 2u;
const SLAB: u32 = 16u;
const HEAD_DIM: u32 = 64u; // and features
const V_DIM: u32 = 64u;
const V_CHUNKS: u32 = 16u; // of a workgroup
const NORMALIZED: bool = true;
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const COLUMNS: u32 = 1u;
const OWN_KEYS: u32 = 4u;
const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const HEAD_SLABS: u32 = (HEAD_DIM + SLAB - 1u) / SLAB;
const O_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const_assert HEAD_DIM >= 1u && HEAD_DIM <= ROWS && LEFT_PARTS == 1u;

var<workgroup> z: array<vec4<f32>, ROW_GROUPS>; // sum of psi(k)

var<private> s: Sums; // chunk x of S, for this invocation's features
var<private> first_v: u32; // the workgroup's first chunk

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    if (workgroup >= params.end_workgroup) {
        return;
    }
    let group_head = workgroup / params.value_blocks;
    let local_head = group_head / params.group;
    let batch = (params.first_head + local_head) / params.kv_heads;
    let kv_head = (params.first_head + local_head) % params.kv_heads;
    let head = kv_head * params.group + group_head % params.group;
    let q_base = params.q_start + batch * params.q_batch + head * params.q_head;
    let k_base = params.k_start + batch * params.k_batch + kv_head * params.k_head;
    let v_base = params.v_start + batch * params.v_batch + kv_head * params.v_head;
    take_place(local);
    first_v = workgroup % params.value_blocks * V_CHUNKS;
    if (x == 0u) {
        for (var g = 0u; g < GROUPS; g++) { // unroll
            z[g * HEIGHT + y] = vec4(0.0);
        }
    }
    if (params.fresh == 0u) {
        load_states(2u * local_head + params.carry_in, first_v);
    }

    for (var begin = params.first_token; begin < params.end_token; begin += ROWS) {
        let end = min(begin + ROWS, params.end_token);
        first_row = begin;
        q_at = q_base + min(vec4(begin + 4u * left_group(0u)) + vec4(0u, 1u, 2u, 3u), vec4(end - 1u)) * params.q_row;
        for (var r = 0u; r < 4u * GROUPS; r++) { // unroll
            o_tile[r][0] = vec4(0.0);
        }
        for (var g = 0u; g < GROUPS; g++) { // unroll
            sum[g] = vec4(0.0);
        }
        add_state();
        add_own_keys(batch, kv_head, begin, begin, end);
        write_rows(batch, head, end);
        take_keys(begin, end, k_base, v_base);
    }

    if (group_head % params.group == 0u) {
        store_states(2u * local_head + params.carry_out, first_v);
    }
}

fn chunk_of(c: u32) -> u32 {
    return first_v + c;
}

// o_tile += phi(Q) S, sum += phi(Q) z: a slab of S at a time goes to workgroup memory, from those that own it.
fn add_state() {
    for (var slab = 0u; slab < HEAD_SLABS; slab++) {
        workgroupBarrier();
        bring_queries(slab, HEAD_CHUNKS);
        for (var g = 0u; g < GROUPS; g++) { // unroll
            if (row_of(g) / SLAB == slab && x < V_CHUNKS) {
                for (var r = 0u; r < 4u; r++) { // unroll
                    right[row_of(g) % SLAB / 4u][r][0][x] = s[4u * g + r][0];
                }
            }
        }
        workgroupBarrier();
        add_slab();
        for (var turn = 0u; turn < (SLAB + WIDTH - 1u) / WIDTH; turn++) { // unroll
            let f = turn * WIDTH + x;
            if (SLAB % WIDTH == 0u || f < SLAB) {
                let own = z[(slab * SLAB + f) / 4u][f % 4u];
                for (var g = 0u; g < GROUPS; g++) { // unroll
                    sum[g] = fma(left[f / 4u][f % 4u][g][y], vec4(own), sum[g]);
                }
            }
        }
    }
}

// S += psi(K)T V, z += sum of psi(k), over the keys from `begin` to `end`. S takes the place of o, which is written.
fn take_keys(begin: u32, end: u32, k_base: u32, v_base: u32) {
    o_tile = s;
    var own: PerRow;
    for (var j = begin; j < end; j += SLAB) {
        workgroupBarrier();
        if (has_left(0u)) {
            // Four features of four keys. A key past the last weighs nothing; features past the last stand for nothing.
            var features: mat4x4<f32>;
            for (var i = 0u; i < 4u; i++) { // unroll
                let key = j + 4u * left_chunk(0u) + i;
                let chunk = min(left_group(0u), HEAD_CHUNKS - 1u);
                features[i] = select(vec4(0.0), key_chunk(k_base + min(key, end - 1u) * params.k_row, chunk), key < end);
            }
            put_left(0u, features);
        }
        bring_values(j, end - 1u, false, v_base);
        workgroupBarrier();
        add_slab();
        for (var turn = 0u; turn < (SLAB + WIDTH - 1u) / WIDTH; turn++) { // unroll
            let i = turn * WIDTH + x;
            if (SLAB % WIDTH == 0u || i < SLAB) {
                for (var g = 0u; g < GROUPS; g++) { // unroll
                    own[g] += left[i / 4u][i % 4u][g][y];
                }
            }
        }
    }
    s = o_tile;
    own = sum_along_width(own);
    if (x == 0u) {
        for (var g = 0u; g < GROUPS; g++) { // unroll
            z[g * HEIGHT + y] += own[g];
        }
    }
}
