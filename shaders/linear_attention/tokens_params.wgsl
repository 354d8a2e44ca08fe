// What the kernels are told, and where their queries are, that walk the tokens of a head in order.
struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    first_token: u32, // of this dispatch
    end_token: u32,
    first_head: u32, // of this round, counted over batch * kv_heads
    kv_heads: u32,
    group: u32, // query heads per kv head; 1 where only keys are walked
    features: u32, // HEAD_DIM
    value_blocks: u32, // ceil(chunks of value dims / those of a workgroup)
    eps: f32,
    carry_in: u32, // of the two states per head in the workspace, the one before the first token
    carry_out: u32, // and the one for the total
    fresh: u32, // 1: nothing comes before
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
    kv_len: u32, // where only keys are walked
    kv_lens_start: u32,
    kv_lens_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<Elem>; // [batch, q_heads, len, head_dim]
