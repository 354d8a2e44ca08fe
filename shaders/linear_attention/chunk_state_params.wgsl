// What both kernels that sum up chunks are told, and what they bind.
struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    first_head: u32, // of this round, counted over batch * kv_heads
    kv_heads: u32,
    group: u32, // heads of rows that are summed up as one: query heads per kv head, or 1
    kv_len: u32, // tokens
    chunk_len: u32, // tokens
    first_chunk: u32, // of this round
    chunks: u32, // in this round
    slots: u32, // states per head in the workspace
    feature_tiles: u32, // ceil(FEATURES / features of a workgroup)
    value_blocks: u32, // ceil(V_CHUNKS / those of a workgroup)
    input_scale: f32, // of the second-order Taylor map
    k_start: u32, // starts and strides in elements; starts may wrap around
    k_batch: u32,
    k_head: u32,
    k_row: u32,
    v_start: u32,
    v_batch: u32,
    v_head: u32,
    v_row: u32,
    kv_lens_start: u32,
    kv_lens_stride: u32,
    numbers_start: u32, // of the backward pass, in vec4s
    numbers_batch: u32,
    numbers_head: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> v: array<Elem>; // [batch, kv_heads, kv_len, v_dim]
@group(0) @binding(11) var<storage, read_write> states: array<vec4<f32>>; // [heads, slots, FEATURES, ROW]
