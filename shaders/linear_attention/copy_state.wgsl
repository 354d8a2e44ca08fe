// What the kernels that copy a state to its slot of the workspace, or back, are given, and what an invocation of theirs owns.
const V_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const ROW: u32 = HEADERS + V_CHUNKS; // vec4s per feature of a state

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    first_head: u32, // of this round, counted over batch * kv_heads
    kv_heads: u32,
    vectors: u32, // heads * FEATURES * (1 + V_CHUNKS)
    slots: u32, // states per head in the workspace
    slot: u32, // where this one lies
    s_start: u32, // starts and strides in elements
    s_batch: u32,
    s_head: u32,
    s_row: u32,
    z_start: u32,
    z_batch: u32,
    z_head: u32,
    max_start: u32,
    max_batch: u32,
    max_head: u32,
    max_feature: u32, // 0 where one maximum stands for the head
    key_slots: u32, // of the backward pass: states of keys per head in the workspace
    key_carry: u32, // where that of all keys lies
    per_head: u32, // 1: one maximum stands for the head
}

@group(0) @binding(0) var<uniform> params: Params;
// A vec4 of a feature's state: its header (z and maximum) if c is 0, else four value dims.
struct Vector {
    c: u32,
    f: u32, // feature
    batch: u32,
    head: u32,
    slot: u32, // first vec4 of the head's state in the workspace
}

fn vector_of(index: u32) -> Vector {
    let local_head = index / (1u + V_CHUNKS) / FEATURES;
    let head = params.first_head + local_head;
    let slot = (local_head * params.slots + params.slot) * FEATURES * ROW;
    let f = (index / (1u + V_CHUNKS)) % FEATURES;
    return Vector(index % (1u + V_CHUNKS), f, head / params.kv_heads, head % params.kv_heads, slot);
}

// Where four value dims of the caller's state start.
fn state_base(v: Vector) -> u32 {
    let dim = 4u * (v.c - 1u);
    return params.s_start + v.batch * params.s_batch + v.head * params.s_head + v.f * params.s_row + dim;
}
