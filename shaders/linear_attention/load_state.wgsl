// Copies the state that comes in to its slot of the workspace.
//
// One invocation owns one vec4 of one feature's state: its header (z and maximum) or four value dims.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;
const V_DIM: u32 = 64u;
const FEATURES: u32 = 64u;
const HEADERS: u32 = 1u; // 2 where a running maximum is carried

const LOWEST: f32 = -1.0e38; // the maximum of no keys

@group(0) @binding(5) var<storage, read> state_s: array<f32>; // [batch, kv_heads, FEATURES, v_dim]
@group(0) @binding(6) var<storage, read> state_z: array<f32>; // [batch, kv_heads, FEATURES]
@group(0) @binding(11) var<storage, read_write> states: array<vec4<f32>>; // [heads, slots, FEATURES, ROW]

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
    let at = v.slot + v.f * ROW + HEADERS + v.c - 1u;

    if (v.c == 0u) {
        let z = state_z[params.z_start + v.batch * params.z_batch + v.head * params.z_head + v.f];
        states[at] = vec4(z, load_max(v.batch, v.head, v.f), 0.0, 0.0);
        return;
    }
    let dim = 4u * (v.c - 1u);
    let base = state_base(v);
    var value = vec4(state_s[base], 0.0, 0.0, 0.0);
    if (dim + 1u < V_DIM) { value.y = state_s[base + 1u]; }
    if (dim + 2u < V_DIM) { value.z = state_s[base + 2u]; }
    if (dim + 3u < V_DIM) { value.w = state_s[base + 3u]; }
    states[at] = value;
}
