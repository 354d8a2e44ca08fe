// The loss of rows from the sums of their parts.
//
// A workgroup owns a row; each invocation takes the parts WORKGROUP apart.
// Workgroup memory: 20 bytes an invocation. Features: none.
// Source: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018, section 3.1.
const WORKGROUP: u32 = 64u;

const LANES: u32 = WORKGROUP;

@group(0) @binding(1) var<storage, read_write> partials: array<vec4<f32>>; // [rows, parts]

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let row = workgroup_index(workgroup_id, num_workgroups);
    if (row >= params.end_workgroup) {
        return;
    }
    var own = Sums(vec2(0.0), vec2(0.0), false);
    for (var part = invocation; part < params.parts; part += WORKGROUP) {
        let other = partials[row * params.parts + part];
        own = joined(own, Sums(max(other.xy, vec2(0.0)), other.zw, other.x < 0.0));
    }
    let all = of_all_lanes(own, invocation);
    if (invocation == 0u) {
        write(row, 0u, all);
    }
}
