// What the kernels that walk the keys are given.
struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    q_heads: u32,
    kv_heads: u32,
    group: u32, // query heads per kv head
    q_len: u32, // tokens
    kv_len: u32, // tokens
    row_tiles: u32, // of a head: of q, or in tiled.wgsl of k, with the rows of all its heads of q
    splits: u32, // ranges that the keys are cut into
    split_keys: u32, // keys per range, a multiple of KEYS
    first_block: u32, // of value dims, in V_BLOCK chunks
    blocks: u32, // of value dims, in this dispatch
    offset: i32, // of the diagonal to the right of j = i, tokens
    align_end: u32, // 1: the diagonal moves by (visible keys - q_len) as well
    left: i32, // keys visible left of the diagonal
    right: i32, // and right of it
    scale: f32, // or its factor, if LOG_N: scale * log(max(n, scale_floor))
    scale_floor: u32,
    divisor: f32, // see divisor.wgsl
    chunk: u32, // tokens
    chunk_tiles: u32, // row tiles per chunk
    chunks: u32,
    state_first: u32, // first chunk of value dims in `states`
    state_chunks: u32, // chunks of value dims in `states`
    chunk_causal: u32, // 1: a chunk's linear part stops before it
    linear_tokens: u32, // 1: and is divided by the tokens in it; 0: by linear_divisor
    linear_divisor: f32,
    q_start: u32, // starts and strides in elements
    q_batch: u32,
    q_head: u32,
    q_row: u32,
    k_start: u32,
    k_batch: u32,
    k_head: u32,
    k_row: u32,
    v_start: u32,
    v_batch: u32,
    v_head: u32,
    v_row: u32,
    u_start: u32,
    u_batch: u32,
    u_head: u32,
    u_row: u32,
    o_start: u32,
    o_batch: u32,
    o_head: u32,
    o_row: u32,
    q_lin_start: u32,
    q_lin_batch: u32,
    q_lin_head: u32,
    q_lin_row: u32,
    kv_lens_start: u32,
    kv_lens_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
