// A gradient that is 0 so far, for classes that are not listed.
//
// One invocation owns four numbers of a row.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    count: u32, // rows
    dim: u32,
    chunks: u32, // ceil(dim / 4)
    gradient_start: u32, // in elements
    gradient_row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    let index = workgroup * WORKGROUP + invocation;
    if (workgroup >= params.end_workgroup || index >= params.count * params.chunks) {
        return;
    }
    store_gradient(params.gradient_start + index / params.chunks * params.gradient_row, 4u * (index % params.chunks), vec4(0.0));
}
