// Second of two kernels for long rows: merges the states of a row's slices and writes one slice.
//
// A workgroup owns a slice. It merges all states of the row, one an invocation, which takes less time than a dispatch more.
// Where nothing is written for each column, there is one workgroup a row.
// Workgroup memory: WORKGROUP states of 16 bytes, or 28 in backward. Features: none.
// Source: as slices.wgsl.
const WORKGROUP: u32 = 256u; // at least the slices
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
    let row = load_row(workgroup / params.written_slices);
    let slice = workgroup % params.written_slices;
    var own = empty(row);
    if (invocation < params.slices) {
        own = load_partial(row.index * params.slices + invocation);
    }
    let state = reduce(own, row.tau, invocation);
    let first = slice * params.slice_chunks;
    write(row, state, first, min(first + params.slice_chunks, (params.columns + 3u) / 4u), invocation);
    if (slice == 0u && invocation == 0u) {
        write_row(row, state);
    }
}
