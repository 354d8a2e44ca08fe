// Copies the final state from its slot of the workspace to where the caller wants it.
//
// One invocation owns one vec4 of one feature's state: its header (z and maximum) or four value dims.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;
const V_DIM: u32 = 64u;
const FEATURES: u32 = 64u;
const HEADERS: u32 = 1u; // 2 where a running maximum is carried
const OWN: u32 = 1u; // neighbouring z of an invocation: 2 where they are written to one word

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
    let v = vector_of(index);
    let header = states[v.slot + v.f * ROW + HEADERS - 1u];
    let scale = store_max(v.batch, v.head, v.f, v.slot, header.y, v.c == 0u);

    if (v.c == 0u) {
        let at = params.z_start + v.batch * params.z_batch + v.head * params.z_head + v.f;
        if (v.f % OWN == 0u) {
            state_z[at] = scale * header.x;
            for (var i = 1u; i < OWN; i++) { // unroll
                if (v.f + i < FEATURES) {
                    let other = states[v.slot + (v.f + i) * ROW + HEADERS - 1u];
                    state_z[at + i] = store_max(v.batch, v.head, v.f + i, v.slot, other.y, false) * other.x;
                }
            }
        }
        return;
    }
    let value = scale * states[v.slot + v.f * ROW + HEADERS + v.c - 1u];
    let dim = 4u * (v.c - 1u);
    let base = state_base(v);
    state_s[base] = value.x;
    if (dim + 1u < V_DIM) { state_s[base + 1u] = value.y; }
    if (dim + 2u < V_DIM) { state_s[base + 2u] = value.z; }
    if (dim + 3u < V_DIM) { state_s[base + 3u] = value.w; }
}
