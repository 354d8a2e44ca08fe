// Gumbel-softmax of short rows, forward or backward: what is asked of a row goes by a `sums` and a `write` fragment.
//
// LANES invocations own a row; each walks its chunks of four columns twice, once for the row's largest score and sums, once to write.
// Noise is computed in both walks and never stored, unless the caller asks for it.
// Workgroup memory: WORKGROUP states of 16 bytes, or 28 in backward. Features: none.
// Source: Jang, Gu and Poole, "Categorical Reparameterization with Gumbel-Softmax", 2017, equation 2.
const WORKGROUP: u32 = 256u;
const LANES: u32 = 256u; // a power of two, at most WORKGROUP
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const ROWS: u32 = WORKGROUP / LANES;

const_assert WORKGROUP % LANES == 0u;

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
    let index = workgroup * ROWS + invocation / LANES;
    let row = load_row(min(index, params.rows - 1u)); // past the last, a row is read and not written
    let lane = invocation % LANES;
    let chunks = (params.columns + 3u) / 4u;
    let state = reduce(search(row, 0u, chunks, lane), row.tau, invocation);
    if (index < params.rows) {
        write(row, state, 0u, chunks, lane);
        if (lane == 0u) {
            write_row(row, state);
        }
    }
}
