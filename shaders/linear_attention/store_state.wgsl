// Copies the final state from its slot of the workspace to where the caller wants it.
//
// One invocation owns one vec4 of one feature's state: its header (z and maximum) or four value dims.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;
const V_DIM: u32 = 64u;
const FEATURES: u32 = 64u;
const HEADERS: u32 = 1u; // 2 where a running maximum is carried
const OWN: u32 = 1u; // neighbouring z of an invocation: 2 where they are written to one word

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
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(5) var<storage, read_write> state_s: array<f32>; // [batch, kv_heads, FEATURES, v_dim]
@group(0) @binding(6) var<storage, read_write> state_z: array<f32>; // [batch, kv_heads, FEATURES]
@group(0) @binding(11) var<storage, read> states: array<vec4<f32>>; // [heads, slots, FEATURES, ROW]

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    let index = workgroup * WORKGROUP + invocation;
    if (workgroup >= params.end_workgroup || index >= params.vectors) {
        return;
    }
    let c = index % (1u + V_CHUNKS);
    let f = (index / (1u + V_CHUNKS)) % FEATURES;
    let local_head = index / (1u + V_CHUNKS) / FEATURES;
    let batch = (params.first_head + local_head) / params.kv_heads;
    let head = (params.first_head + local_head) % params.kv_heads;
    let slot = (local_head * params.slots + params.slot) * FEATURES * ROW;
    let header = states[slot + f * ROW + HEADERS - 1u];
    let scale = store_max(batch, head, f, slot, header.y, c == 0u);

    if (c == 0u) {
        let at = params.z_start + batch * params.z_batch + head * params.z_head + f;
        if (f % OWN == 0u) {
            state_z[at] = scale * header.x;
            for (var i = 1u; i < OWN; i++) { // unroll
                if (f + i < FEATURES) {
                    let other = states[slot + (f + i) * ROW + HEADERS - 1u];
                    state_z[at + i] = store_max(batch, head, f + i, slot, other.y, false) * other.x;
                }
            }
        }
        return;
    }
    let value = scale * states[slot + f * ROW + HEADERS + c - 1u];
    let dim = 4u * (c - 1u);
    let base = params.s_start + batch * params.s_batch + head * params.s_head + f * params.s_row + dim;
    state_s[base] = value.x;
    if (dim + 1u < V_DIM) { state_s[base + 1u] = value.y; }
    if (dim + 2u < V_DIM) { state_s[base + 2u] = value.z; }
    if (dim + 3u < V_DIM) { state_s[base + 3u] = value.w; }
}
