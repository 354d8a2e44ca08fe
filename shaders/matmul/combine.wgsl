// Adds the sums of all ranges of k, in their order, and ends the product: c = activation(a b + bias).
//
// One invocation owns four columns of one row; it has IN_FLIGHT ranges on their way at a time, for each add waits for the
// one before, but no load does.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;
const IN_FLIGHT: u32 = 4u;

@group(0) @binding(5) var<storage, read> partials: array<vec4<f32>>; // [ranges, matrices, m, n_chunks]

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    let count = params.matrices * params.m * params.n_chunks;
    let index = workgroup * WORKGROUP + invocation;
    if (workgroup >= params.end_workgroup || index >= count) {
        return;
    }
    var sums = vec4(0.0);
    for (var range = 0u; range < params.ranges; range += IN_FLIGHT) {
        for (var i = 0u; i < IN_FLIGHT; i++) { // unroll
            let partial = partials[min(range + i, params.ranges - 1u) * count + index];
            sums += select(vec4(0.0), partial, range + i < params.ranges);
        }
    }
    let row = index / params.n_chunks;
    write_sums(row / params.m, row % params.m, 4u * (index % params.n_chunks), sums);
}
