// Sums of numbers that lie side by side, each of `count`, in an order that never changes.
//
// A workgroup owns a sum, an invocation every WORKGROUP-th of its terms.
// Both buffers are to be written, as both may be of one workspace.
// Workgroup memory: 4 * WORKGROUP bytes. Features: none.
const WORKGROUP: u32 = 256u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    count: u32, // terms of a sum
    length: u32, // of all sums
    sums_start: u32, // start and stride in elements
    sums_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> terms: array<f32>; // [length]
@group(0) @binding(2) var<storage, read_write> sums: array<f32>; // [ceil(length / count)]

var<workgroup> shared_sums: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    if (workgroup >= params.end_workgroup) {
        return;
    }
    let first = workgroup * params.count;
    let count = min(params.count, params.length - first);
    var own = 0.0;
    for (var at = invocation; at < count; at += WORKGROUP) {
        own += terms[first + at];
    }
    shared_sums[invocation] = own;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (invocation < half) {
            own += shared_sums[invocation + half];
            shared_sums[invocation] = own;
        }
    }
    if (invocation == 0u) {
        sums[params.sums_start + workgroup * params.sums_stride] = own;
    }
}
