// Gradients of the linear part of mixed chunks, tiled, over the value dims whose states are there: dq_lin = M (u * dout) / n of queries if
// OF_QUERIES, else dk_lin = dM v of keys, rows of a chunk by the state that their chunk meets.
//
// One workgroup owns ROWS rows of a chunk of a head, and all key dims. How its WIDTH x HEIGHT invocations share them is told in
// shared/tile.wgsl: the terms are value dims. Results of other value dims, which have been there before, are added to.
// Workgroup memory: at most 16 KiB. Features: none.
// Source: Hua et al., "Transformer Quality in Linear Time", 2022, section 4.1.
const WIDTH: u32 = 16u;
const HEIGHT: u32 = 8u;
const GROUPS: u32 = 2u;
const COLUMNS: u32 = 2u;
const OWN_KEYS: u32 = 4u;
const SLAB: u32 = 16u;
const KEY_DIM: u32 = 128u;
const V_DIM: u32 = 1536u;
const OF_QUERIES: bool = true;

const KEY_CHUNKS: u32 = (KEY_DIM + 3u) / 4u;
const V_CHUNKS: u32 = KEY_CHUNKS; // of results
const STATE_BLOCKS: u32 = SLAB_CHUNKS * KEY_CHUNKS; // four dims of four in a slab
const STATE_PARTS: u32 = (STATE_BLOCKS + WORKGROUP - 1u) / WORKGROUP; // of them, an invocation brings so many

@group(0) @binding(7) var<storage, read_write> states: array<vec4<f32>>; // [batch, kv_heads, chunk, 4 * KEY_CHUNKS, state_chunks]
@group(0) @binding(11) var<storage, read_write> partials: array<vec4<f32>>; // [batch, own_heads, own_len, key_dim / 4]

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
    take_place(local);
    let own = owned_at(workgroup);
    if (own.first >= own.end) {
        return; // the last chunk is short
    }
    owned = own;
    let kv_head = select(own.head, own.head / params.group, OF_QUERIES);
    let kv_heads = select(params.own_heads, params.own_heads / params.group, OF_QUERIES);
    let place = (own.batch * kv_heads + kv_head) * params.chunks + select(0u, own.chunk, params.chunk_causal == 1u);
    let state = place * 4u * KEY_CHUNKS * params.state_chunks;
    let factor = select(1.0, linear_factor(own.kv_len, own.chunk * params.own_chunk), OF_QUERIES);
    // Chunks of value dims that none has had before; none where there is no linear part.
    let columns = select(0u, params.state_chunks, factor > 0.0);

    for (var first = params.state_own; first < columns; first += SLAB_CHUNKS) {
        workgroupBarrier();
        for (var part = 0u; part < LEFT_PARTS; part++) { // unroll
            if (has_left(part)) {
                put_left(part, values_of(own_rows(part), first + left_chunk(part)));
            }
        }
        for (var part = 0u; part < STATE_PARTS; part++) { // unroll
            let i = part * WORKGROUP + invocation;
            if (i < STATE_BLOCKS) {
                bring_state(state, first, i / KEY_CHUNKS, i % KEY_CHUNKS);
            }
        }
        workgroupBarrier();
        add_slab();
    }

    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var r = 0u; r < 4u; r++) { // unroll
            let row = own.first + row_of(g) + r;
            for (var c = 0u; c < COLUMNS; c++) { // unroll
                let column = x + c * WIDTH;
                if (row < own.end && column < KEY_CHUNKS) {
                    let at = params.partial_first + ((own.batch * params.own_heads + own.head) * params.own_len + row) * KEY_CHUNKS + column;
                    var sum = factor * o_tile[4u * g + r][c];
                    if (params.state_first > 0u) {
                        sum += partials[at];
                    }
                    partials[at] = sum;
                }
            }
        }
    }
}

// Four value dims of four rows, 0 past the last, and of keys that no row sees.
fn values_of(rows: vec4<u32>, column: u32) -> mat4x4<f32> {
    if (column >= params.state_chunks) {
        return mat4x4<f32>();
    }
    let c = params.state_first + column;
    if (OF_QUERIES) {
        return transpose(mat4x4(
            incoming(owned.head, rows.x, c),
            incoming(owned.head, rows.y, c),
            incoming(owned.head, rows.z, c),
            incoming(owned.head, rows.w, c),
        ));
    }
    return transpose(mat4x4(
        select(vec4(0.0), value(owned.head, rows.x, c), rows.x < owned.kv_len),
        select(vec4(0.0), value(owned.head, rows.y, c), rows.y < owned.kv_len),
        select(vec4(0.0), value(owned.head, rows.z, c), rows.z < owned.kv_len),
        select(vec4(0.0), value(owned.head, rows.w, c), rows.w < owned.kv_len),
    ));
}

// To workgroup memory: four key dims of four value dims. Those past the last are times 0.
fn bring_state(state: u32, first: u32, slab_chunk: u32, key_chunk: u32) {
    let column = min(first + slab_chunk, params.state_chunks - 1u);
    var dims: mat4x4<f32>;
    for (var d = 0u; d < 4u; d++) { // unroll
        dims[d] = states[state + (4u * key_chunk + d) * params.state_chunks + column];
    }
    let terms = transpose(dims);
    for (var d = 0u; d < 4u; d++) { // unroll
        right[slab_chunk][d][key_chunk / WIDTH][key_chunk % WIDTH] = terms[d];
    }
}
