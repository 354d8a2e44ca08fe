// What the kernels that compute the states of chunks are given.
struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    q_heads: u32,
    kv_heads: u32,
    kv_len: u32, // tokens
    chunk: u32, // tokens
    chunks: u32,
    key_tiles: u32, // of the key dims
    blocks: u32, // of value dims, in V_BLOCK chunks
    state_first: u32, // first chunk of value dims in `states`
    state_chunks: u32, // chunks of value dims in `states`
    k_start: u32, // starts and strides in elements
    k_batch: u32,
    k_head: u32,
    k_row: u32,
    v_start: u32,
    v_batch: u32,
    v_head: u32,
    v_row: u32,
    kv_lens_start: u32,
    kv_lens_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(7) var<storage, read_write> states: array<vec4<f32>>; // [batch, kv_heads, chunk, 4 * KEY_CHUNKS, state_chunks]
