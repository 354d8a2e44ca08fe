// What flows back to the states of mixed chunks, tiled: q_lin^T (u * dout) over the queries of a chunk, of all heads that share the state,
// SLAB tokens a step, each divided as the chunk's linear part is.
//
// One workgroup owns ROWS key dims of one chunk of one (batch, kv head), and V_BLOCK chunks of four value dims. How its
// WIDTH x HEIGHT invocations share them is told in shared/tile.wgsl: the rows of the tile are key dims, its terms tokens.
// Workgroup memory: at most 16 KiB. Features: none.
// Source: Hua et al., "Transformer Quality in Linear Time", 2022, section 4.1.
const WIDTH: u32 = 16u;
const HEIGHT: u32 = 16u;
const GROUPS: u32 = 2u;
const COLUMNS: u32 = 2u;
const OWN_KEYS: u32 = 4u;
const SLAB: u32 = 16u;
const KEY_DIM: u32 = 128u;
const V_DIM: u32 = 1536u;
const V_BLOCK: u32 = 32u;

const KEY_CHUNKS: u32 = (KEY_DIM + 3u) / 4u;
const V_CHUNKS: u32 = V_BLOCK; // of the block
const_assert KEY_DIM >= 1u && V_DIM >= 1u && V_BLOCK >= 1u && LEFT_PARTS == 1u; // and V_BLOCK <= state_chunks

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    q_heads: u32,
    kv_heads: u32,
    group: u32, // query heads per kv head
    q_len: u32, // tokens
    kv_len: u32, // tokens
    chunk: u32, // tokens
    chunks: u32,
    key_tiles: u32, // of the key dims
    blocks: u32, // of value dims, in V_BLOCK chunks
    chunk_causal: u32, // 1: a chunk's linear part stops before it
    linear_tokens: u32, // 1: and is divided by the tokens in it; 0: by linear_divisor
    linear_divisor: f32,
    state_first: u32, // first chunk of value dims in `states`
    state_chunks: u32, // chunks of value dims in `states`
    q_start: u32, // of q_lin; starts and strides in elements
    q_batch: u32,
    q_head: u32,
    q_row: u32,
    u_start: u32,
    u_batch: u32,
    u_head: u32,
    u_row: u32,
    dout_start: u32,
    dout_batch: u32,
    dout_head: u32,
    dout_row: u32,
    kv_lens_start: u32,
    kv_lens_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(7) var<storage, read_write> states: array<vec4<f32>>; // [batch, kv_heads, chunk, 4 * KEY_CHUNKS, state_chunks]

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
    let block = workgroup % params.blocks;
    let key_tile = (workgroup / params.blocks) % params.key_tiles;
    let chunk = (workgroup / params.blocks / params.key_tiles) % params.chunks;
    let batch_head = workgroup / params.blocks / params.key_tiles / params.chunks;
    let batch = batch_head / params.kv_heads;
    let kv_head = batch_head % params.kv_heads;
    // The last block starts early enough to be whole.
    let first = min(block * V_BLOCK, params.state_chunks - V_BLOCK);
    take_place(local);

    // What has no linear part leaves nothing.
    let factor = linear_factor(kv_len_of(batch), chunk * params.chunk);
    let begin = chunk * params.chunk;
    let end = select(begin, min(begin + params.chunk, params.q_len), factor > 0.0);
    for (var member = 0u; member < params.group; member++) {
        let head = kv_head * params.group + member;
        let q_base = params.q_start + batch * params.q_batch + head * params.q_head;
        let dout_base = params.dout_start + batch * params.dout_batch + head * params.dout_head;
        for (var i = begin; i < end; i += SLAB) {
            workgroupBarrier();
            bring_queries(i, end, q_base, head, key_tile * ROW_GROUPS);
            for (var part = 0u; part < RIGHT_PARTS; part++) { // unroll
                let at = part * WORKGROUP + invocation;
                if (has_right(part)) {
                    let c = params.state_first + first + at % V_CHUNKS;
                    let token = min(i + at / V_CHUNKS, end - 1u);
                    put_right(at, load_dout(dout_base + token * params.dout_row, c) * gate(batch, head, token, c));
                }
            }
            workgroupBarrier();
            add_slab();
        }
    }

    let place = (batch_head * params.chunks + chunk) * 4u * KEY_CHUNKS;
    write_state(place, key_tile * ROWS, first, block * V_BLOCK - first, factor);
}

// To workgroup memory: four dims of four tokens to an invocation. A token past the last weighs nothing.
fn bring_queries(i: u32, end: u32, q_base: u32, head: u32, first_chunk: u32) {
    if (has_left(0u)) {
        let c = min(first_chunk + left_group(0u), KEY_CHUNKS - 1u);
        var dims: mat4x4<f32>;
        for (var d = 0u; d < 4u; d++) { // unroll
            let token = i + 4u * left_chunk(0u) + d;
            let own = affine(load_q(q_base + min(token, end - 1u) * params.q_row, c), Q_LIN_MAP, head, c);
            dims[d] = select(vec4(0.0), own, token < end);
        }
        put_left(0u, dims);
    }
}
