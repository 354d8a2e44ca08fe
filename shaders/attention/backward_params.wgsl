// What the kernels are given that walk pairs of query and key for gradients.
struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    q_heads: u32,
    kv_heads: u32,
    group: u32, // query heads per kv head
    q_len: u32, // tokens
    kv_len: u32, // tokens
    rows: u32, // batch * q_heads * q_len
    tiles: u32, // of the rows, or of the keys, of a kv head
    first_pair: u32, // of batch and kv head, of those whose tiles are walked
    key_tiles: u32, // of keys; of a gradient of the bias
    splits: u32, // ranges that what a tile walks is cut into
    split_keys: u32, // keys per range, a multiple of those in a step
    split_heads: u32, // heads per range, and of one
    split_rows: u32, // queries per range
    row_splits: u32, // ranges of the queries of a head
    offset: i32, // of the diagonal to the right of j = i, tokens
    align_end: u32, // 1: the diagonal moves by (visible keys - q_len) as well
    left: i32, // keys visible left of the diagonal
    right: i32, // and right of it
    scale: f32,
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
    dout_start: u32,
    dout_batch: u32,
    dout_head: u32,
    dout_row: u32,
    bias_start: u32,
    bias_batch: u32,
    bias_head: u32,
    bias_row: u32,
    mask_start: u32,
    mask_batch: u32,
    mask_head: u32,
    mask_row: u32,
    dq_start: u32,
    dq_batch: u32,
    dq_head: u32,
    dq_row: u32,
    dk_start: u32,
    dk_batch: u32,
    dk_head: u32,
    dk_row: u32,
    dv_start: u32,
    dv_batch: u32,
    dv_head: u32,
    dv_row: u32,
    dbias_start: u32,
    dbias_batch: u32,
    dbias_head: u32,
    dbias_row: u32,
    bias_batches: u32, // 1, or all
    bias_heads: u32,
    sum_batches: u32, // that a number of the bias's gradient is summed over
    sum_heads: u32,
    sum_tiles: u32, // of rows
    split_terms: u32, // of these three together, in a range
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<Elem>; // [batch, q_heads, q_len, head_dim]
@group(0) @binding(2) var<storage, read> k: array<Elem>; // [batch, kv_heads, kv_len, head_dim]
@group(0) @binding(3) var<storage, read> v: array<Elem>; // [batch, kv_heads, kv_len, v_dim]
