// What the kernels of the backward pass are given that walk rows.
struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    q_heads: u32,
    group: u32, // query heads per kv head
    q_len: u32, // tokens
    kv_len: u32, // tokens
    own_heads: u32, // of the side that is owned
    own_len: u32, // tokens
    own_chunk: u32, // tokens per chunk
    walked_len: u32, // of the other side, tokens
    walked_chunk: u32,
    chunks: u32,
    row_tiles: u32, // of a chunk of a head
    splits: u32, // ranges of heads and rows that are walked
    row_splits: u32, // of rows
    split_rows: u32, // rows per range
    split_heads: u32, // heads per range
    first_block: u32, // of results, in V_BLOCK chunks
    blocks: u32, // of results, in this dispatch
    offset: i32, // of the diagonal to the right of j = i, tokens
    align_end: u32, // 1: the diagonal moves by (visible keys - q_len) as well
    left: i32, // keys visible left of the diagonal
    right: i32, // and right of it
    scale: f32, // of scores, before they are squared
    divisor: f32, // see divisor.wgsl
    partial_first: u32, // where the dispatch's results start in `partials`
    partial_rows: u32, // of one range
    chunk_causal: u32, // 1: a chunk's linear part stops before it
    linear_tokens: u32, // 1: and is divided by the tokens in it; 0: by linear_divisor
    linear_divisor: f32,
    state_first: u32, // first chunk of value dims in `states`
    state_own: u32, // the first of them that was not there before
    state_chunks: u32, // chunks of value dims in `states`
    q_start: u32, // starts and strides in elements
    q_batch: u32,
    q_head: u32,
    q_row: u32,
    k_start: u32,
    k_batch: u32,
    k_head: u32,
    k_row: u32,
    v_row: u32, // of what is added up: k_row, or 1
    values_start: u32, // of v
    values_batch: u32,
    values_head: u32,
    values_row: u32,
    u_start: u32,
    u_batch: u32,
    u_head: u32,
    u_row: u32,
    dout_start: u32,
    dout_batch: u32,
    dout_head: u32,
    dout_row: u32,
    q_lin_start: u32,
    q_lin_batch: u32,
    q_lin_head: u32,
    q_lin_row: u32,
    gradient_start: u32,
    gradient_batch: u32,
    gradient_head: u32,
    gradient_row: u32,
    kv_lens_start: u32,
    kv_lens_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
