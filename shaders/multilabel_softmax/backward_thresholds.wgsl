// The gradient of each class's threshold: the sums over some rows each, added up in their order.
//
// An invocation owns four classes.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 256u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    classes: u32,
    sums: u32, // of each class
    dthreshold_start: u32, // in elements
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> class_sums: array<vec4<f32>>; // [sums, classes / 4]
@group(0) @binding(2) var<storage, read_write> dthreshold: array<f32>; // [classes]

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    let chunks = (params.classes + 3u) / 4u;
    let chunk = workgroup * WORKGROUP + invocation;
    if (workgroup >= params.end_workgroup || chunk >= chunks) {
        return;
    }
    var sum = vec4(0.0);
    for (var at = 0u; at < params.sums; at++) {
        sum += class_sums[at * chunks + chunk];
    }
    let c = 4u * chunk;
    let at = params.dthreshold_start + c;
    dthreshold[at] = sum.x;
    if (c + 1u < params.classes) { dthreshold[at + 1u] = sum.y; }
    if (c + 2u < params.classes) { dthreshold[at + 2u] = sum.z; }
    if (c + 3u < params.classes) { dthreshold[at + 3u] = sum.w; }
}
