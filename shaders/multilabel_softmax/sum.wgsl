// Sums of f32, 4096 to a workgroup, always in the same order; the first of several passes multiplies with a factor. What is NaN is
// told by its bits, and makes the sum NaN.
//
// An invocation adds numbers WORKGROUP apart, and then halves of the workgroup add each other's.
// Workgroup memory: 8 bytes an invocation. Features: none.
const WORKGROUP: u32 = 256u;
const TERMS: u32 = 4096u; // of a workgroup

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    count: u32, // of all terms
    factor: f32,
    sums_start: u32, // in elements
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> terms: array<u32>; // [count], f32
@group(0) @binding(2) var<storage, read_write> sums: array<f32>; // [count / 4096]

var<workgroup> partial: array<f32, WORKGROUP>;
var<workgroup> broken: array<u32, WORKGROUP>;

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
    var sum = 0.0;
    var is_broken = 0u;
    let end = min((workgroup + 1u) * TERMS, params.count);
    for (var at = workgroup * TERMS + invocation; at < end; at += WORKGROUP) {
        let bits = terms[at];
        let is_number = (bits & 0x7fffffffu) <= 0x7f800000u;
        sum += params.factor * bitcast<f32>(select(0u, bits, is_number));
        is_broken |= select(1u, 0u, is_number);
    }
    for (var step = WORKGROUP / 2u; step > 0u; step /= 2u) {
        partial[invocation] = sum;
        broken[invocation] = is_broken;
        workgroupBarrier();
        if (invocation < step) {
            sum += partial[invocation + step];
            is_broken |= broken[invocation + step];
        }
        workgroupBarrier();
    }
    if (invocation == 0u) {
        var nan = 0x7fc00000u;
        sums[params.sums_start + workgroup] = bitcast<f32>(select(bitcast<u32>(sum), nan, is_broken != 0u));
    }
}
