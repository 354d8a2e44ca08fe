// Sums of f32 that lie side by side, each of `count`, times a factor, in an order that never changes. What is NaN is told by its bits,
// and makes its sum NaN.
//
// A workgroup owns a sum, an invocation every WORKGROUP-th of its terms; then halves of the workgroup add each other's.
// Both buffers are to be written, as both may be of one workspace.
// Workgroup memory: 8 * WORKGROUP bytes. Features: none.
const WORKGROUP: u32 = 256u;

const NAN: u32 = 0x7fc00000u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    count: u32, // terms of a sum
    length: u32, // of all sums
    factor: f32,
    sums_start: u32, // start and stride in elements
    sums_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> terms: array<u32>; // [length], f32
@group(0) @binding(2) var<storage, read_write> sums: array<f32>; // [ceil(length / count)]

var<workgroup> shared_sums: array<f32, WORKGROUP>;
var<workgroup> shared_broken: array<u32, WORKGROUP>;

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
    var broken = 0u;
    for (var at = invocation; at < count; at += WORKGROUP) {
        let bits = terms[first + at];
        let is_number = (bits & 0x7fffffffu) <= 0x7f800000u;
        own += params.factor * bitcast<f32>(select(0u, bits, is_number));
        broken |= select(1u, 0u, is_number);
    }
    shared_sums[invocation] = own;
    shared_broken[invocation] = broken;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (invocation < half) {
            own += shared_sums[invocation + half];
            broken |= shared_broken[invocation + half];
            shared_sums[invocation] = own;
            shared_broken[invocation] = broken;
        }
    }
    if (invocation == 0u) {
        sums[params.sums_start + workgroup * params.sums_stride] = bitcast<f32>(select(bitcast<u32>(own), NAN, broken > 0u));
    }
}
