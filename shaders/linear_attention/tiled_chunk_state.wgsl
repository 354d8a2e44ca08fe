// Sums over chunks of keys in tiles: S = psi(K)T V and z = sum of psi(k), for every feature of every chunk.
//
// One workgroup owns ROWS features and all value dims of one chunk of one (batch, kv head). How its WIDTH x HEIGHT invocations
// share them is told in shared/tile.wgsl: the features are a tile's rows, the terms of its sums are keys, SLAB a step.
// Sums of an unbounded map are relative to the chunk's own maximum of the feature, so that they stay finite.
// Workgroup memory: that of shared/tile.wgsl. Features: none.
// Source: Katharopoulos et al., "Transformers are RNNs", 2020, eqs. 5 and 6.
const WIDTH: u32 = 16u;
const HEIGHT: u32 = 8u;
const GROUPS: u32 = 2u;
const COLUMNS: u32 = 1u;
const OWN_KEYS: u32 = 4u;
const SLAB: u32 = 16u;
const HEAD_DIM: u32 = 64u; // width of k as bound
const V_DIM: u32 = 64u;
const FEATURES: u32 = 64u;
const HEADERS: u32 = 1u; // vec4s before a feature's value dims: a second where a running maximum is carried
const GROUPED: bool = false; // whether rows are those of all query heads of a kv head
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const V_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const ROW: u32 = HEADERS + V_CHUNKS; // vec4s per feature of a state
const_assert HEAD_DIM >= 1u && V_DIM >= 1u && LEFT_PARTS == 1u;

var<private> sum: PerRow; // of psi(k), for the keys that this invocation counts

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
    let tile = workgroup % params.feature_tiles;
    let chunk_head = workgroup / params.feature_tiles;
    let chunk = chunk_head % params.chunks;
    let local_head = chunk_head / params.chunks;
    let batch = (params.first_head + local_head) / params.kv_heads;
    let head = (params.first_head + local_head) % params.kv_heads * members();
    let k_base = params.k_start + batch * params.k_batch + head * params.k_head;
    let v_base = params.v_start + batch * params.v_batch + head * params.v_head;
    let begin = (params.first_chunk + chunk) * params.chunk_len;
    let end = min(begin + params.chunk_len, kv_len_of(batch));
    take_place(local);

    // Past the last feature the last four are brought again, and not stored.
    begin_features(min(4u * (tile * ROW_GROUPS + left_group(0u)), 4u * ((FEATURES - 1u) / 4u)), k_base, begin, end);
    for (var member = 0u; member < members(); member++) {
        start_counts(batch, head + member);
        add_keys(begin, end, k_base + member * params.k_head, v_base + member * params.v_head);
    }

    write_state((local_head * params.slots + chunk) * FEATURES * ROW, tile * ROWS);
}

fn members() -> u32 {
    return select(1u, params.group, GROUPED);
}

// S += psi(K)T V, z += psi(K)T 1.
fn add_keys(begin: u32, end: u32, k_base: u32, v_base: u32) {
    for (var j = begin; j < end; j += SLAB) {
        workgroupBarrier();
        bring_keys(j, end, k_base);
        for (var part = 0u; part < RIGHT_PARTS; part++) { // unroll
            let i = part * WORKGROUP + invocation;
            if (has_right(part)) {
                put_right(i, load_v(v_base + min(j + i / V_CHUNKS, end - 1u) * params.v_row, i % V_CHUNKS));
            }
        }
        workgroupBarrier();
        add_slab();
        for (var turn = 0u; turn < (SLAB + WIDTH - 1u) / WIDTH; turn++) { // unroll
            let i = turn * WIDTH + x;
            if (SLAB % WIDTH == 0u || i < SLAB) {
                for (var g = 0u; g < GROUPS; g++) { // unroll
                    sum[g] += counted(left[i / 4u][i % 4u][g][y], min(j + i, end - 1u));
                }
            }
        }
    }
}

// To workgroup memory: four features of four keys to an invocation. A key past the last weighs nothing.
fn bring_keys(j: u32, end: u32, k_base: u32) {
    if (has_left(0u)) {
        var features: mat4x4<f32>;
        for (var i = 0u; i < 4u; i++) { // unroll
            let key = j + 4u * left_chunk(0u) + i;
            let own = key_features(k_base + min(key, end - 1u) * params.k_row);
            features[i] = select(vec4(0.0), scaled(own, min(key, end - 1u)), key < end);
        }
        put_left(0u, features);
    }
}

fn write_state(base: u32, first_feature: u32) {
    sum = sum_along_width(sum);
    var maximum: PerRow;
    if (HEADERS == 2u) {
        maximum = of_groups(key_maximum());
    }
    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var r = 0u; r < 4u; r++) { // unroll
            let feature = first_feature + row_of(g) + r;
            if (feature < FEATURES) {
                let at = base + feature * ROW;
                if (x == 0u) {
                    states[at] = vec4(sum[g][r], maximum[g][r], 0.0, 0.0);
                }
                for (var c = 0u; c < COLUMNS; c++) { // unroll
                    if (x + c * WIDTH < V_CHUNKS) {
                        states[at + HEADERS + x + c * WIDTH] = o_tile[4u * g + r][c];
                    }
                }
            }
        }
    }
}

// What those that bring this invocation's groups have, each for its own four features.
fn of_groups(own: vec4<f32>) -> PerRow {
    workgroupBarrier();
    if (has_left(0u) && left_chunk(0u) == 0u) {
        left[0][0][left_group(0u) / HEIGHT][left_group(0u) % HEIGHT] = own;
    }
    workgroupBarrier();
    var all: PerRow;
    for (var g = 0u; g < GROUPS; g++) { // unroll
        all[g] = left[0][0][g][y];
    }
    return all;
}
