// Adds up the results of ranges into rows of a gradient, first to last.
//
// One invocation owns four dims of one row.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;
const RESULT_DIM: u32 = 128u;

const RESULT_CHUNKS: u32 = (RESULT_DIM + 3u) / 4u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32, // batch * heads * len
    heads: u32,
    len: u32, // tokens
    splits: u32, // partials per row
    partial_first: u32, // where they start
    gradient_start: u32, // starts and strides in elements
    gradient_batch: u32,
    gradient_head: u32,
    gradient_row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(11) var<storage, read> partials: array<vec4<f32>>; // [splits, rows, dims / 4]

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    let index = workgroup * WORKGROUP + invocation;
    let row = index / RESULT_CHUNKS;
    if (workgroup >= params.end_workgroup || row >= params.rows) {
        return;
    }
    var sum = vec4(0.0);
    for (var s = 0u; s < params.splits; s++) {
        sum += partials[params.partial_first + s * params.rows * RESULT_CHUNKS + index];
    }
    let place = row_place(row);
    let base = params.gradient_start + place.batch * params.gradient_batch + place.head * params.gradient_head + place.i * params.gradient_row;
    store_gradient(base, index % RESULT_CHUNKS, sum);
}
