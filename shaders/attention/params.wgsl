// What the kernels that walk the keys are given.
struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    q_heads: u32,
    kv_heads: u32,
    group: u32, // query heads per kv head
    q_len: u32, // tokens
    kv_len: u32, // tokens
    row_tiles: u32, // of the rows of a kv head
    splits: u32, // ranges that the keys are cut into
    split_keys: u32, // keys per range, a multiple of those in a step
    offset: i32, // of the diagonal to the right of j = i, tokens
    align_end: u32, // 1: the diagonal moves by (visible keys - q_len) as well
    left: i32, // keys visible left of the diagonal
    right: i32, // and right of it
    scale: f32, // or its factor, if LOG_N: scale * max(log(max(n, scale_floor)), scale_least)
    scale_floor: u32,
    scale_least: f32,
    softcap: f32,
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
    o_start: u32,
    o_batch: u32,
    o_head: u32,
    o_row: u32,
    lse_start: u32,
    lse_batch: u32,
    lse_head: u32,
    lse_row: u32,
    entropy_start: u32,
    entropy_batch: u32,
    entropy_head: u32,
    entropy_row: u32,
    bias_start: u32,
    bias_batch: u32,
    bias_head: u32,
    bias_row: u32,
    mask_start: u32,
    mask_batch: u32,
    mask_head: u32,
    mask_row: u32,
    row_scale_start: u32,
    row_scale_batch: u32,
    row_scale_head: u32,
    row_scale_row: u32,
    kv_lens_start: u32,
    kv_lens_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<Elem>; // [batch, q_heads, q_len, head_dim]
@group(0) @binding(2) var<storage, read> k: array<Elem>; // [batch, kv_heads, kv_len, head_dim]
@group(0) @binding(3) var<storage, read> v: array<Elem>; // [batch, kv_heads, kv_len, v_dim]
