// Sums of f32, 4096 to a workgroup, always in the same order; the last of several passes multiplies with a factor.
//
// An invocation adds numbers WORKGROUP apart, and then halves of the workgroup add each other's.
// Workgroup memory: 4 bytes an invocation. Features: none.
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
@group(0) @binding(1) var<storage, read_write> terms: array<f32>; // [count]
@group(0) @binding(2) var<storage, read_write> sums: array<f32>; // [count / 4096]

var<workgroup> partial: array<f32, WORKGROUP>;

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
    let end = min((workgroup + 1u) * TERMS, params.count);
    for (var at = workgroup * TERMS + invocation; at < end; at += WORKGROUP) {
        sum += terms[at];
    }
    for (var step = WORKGROUP / 2u; step > 0u; step /= 2u) {
        partial[invocation] = sum;
        workgroupBarrier();
        if (invocation < step) {
            sum += partial[invocation + step];
        }
        workgroupBarrier();
    }
    if (invocation == 0u) {
        sums[params.sums_start + workgroup] = params.factor * sum;
    }
}
