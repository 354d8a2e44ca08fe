// First of two kernels for long rows: the state (largest score, its column, sums) of one slice of a row.
//
// A workgroup owns a slice; its invocations walk chunks of four columns.
// Workgroup memory: WORKGROUP states of 16 bytes, or 28 in backward. Features: none.
// Source: as rows.wgsl; merged as in Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018, section 3.1.
const WORKGROUP: u32 = 256u;
const LANES: u32 = 256u;
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

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
    let row = load_row(workgroup / params.slices);
    let first = (workgroup % params.slices) * params.slice_chunks;
    let end = min(first + params.slice_chunks, (params.columns + 3u) / 4u);
    let state = reduce(search(row, first, end, invocation), row.tau, invocation);
    if (invocation == 0u) {
        store_partial(workgroup, state);
    }
}
