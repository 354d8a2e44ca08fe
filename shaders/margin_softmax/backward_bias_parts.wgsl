// Sums for the gradient of the bias, of some rows each, to fewer: so many that follow on one another into the first of them.
//
// An invocation owns a class and PART groups, which it adds up in their order; neighbours own neighbouring classes.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;
const PART: u32 = 32u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    chunk_classes: u32,
    groups: u32,
    row_products: u32, // from the sums of one group to those of the next
    class_groups: u32, // workgroups along the classes
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> bias_sums: array<f32>; // [groups, row_products]

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
    let own_class = workgroup % params.class_groups * WORKGROUP + invocation;
    if (own_class >= params.chunk_classes) {
        return;
    }
    let first = workgroup / params.class_groups * PART;
    let end = min(first + PART, params.groups);
    var sum = 0.0;
    for (var group = first; group < end; group++) {
        sum += bias_sums[group * params.row_products + own_class];
    }
    bias_sums[first * params.row_products + own_class] = sum;
}
