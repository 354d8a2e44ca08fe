// What both kernels that compute rows are told, and what they bind.
struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    first_head: u32, // of this round, counted over batch * kv_heads
    kv_heads: u32,
    group: u32, // query heads per kv head
    q_len: u32, // tokens
    chunk_len: u32, // tokens
    first_chunk: u32, // of this round
    chunks: u32, // in this round
    tiles: u32, // workgroups per chunk and head: ceil(chunk_len / rows of one)
    slots: u32, // states per head in the workspace
    first_slot: u32, // the state of the round's first chunk
    slot_step: u32, // from one chunk's state to the next's: 1, or 0 in full mode
    input_scale: f32, // of the second-order Taylor map
    eps: f32,
    log_eps: f32,
    q_start: u32, // starts and strides in elements; starts may wrap around
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
    numbers_start: u32, // of the backward pass, in vec4s
    numbers_batch: u32,
    numbers_head: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<Elem>; // [batch, q_heads, q_len, head_dim]
@group(0) @binding(11) var<storage, read> states: array<vec4<f32>>; // [heads, slots, FEATURES, ROW]
