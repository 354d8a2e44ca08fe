// A gradient of attention from what ranges of the walk have left of it, added up in their order.
//
// An invocation owns four dims of a row.
// Workgroup memory: none. Features: none.
// Source: Dao, "FlashAttention-2", 2023, algorithm 2.
const WORKGROUP: u32 = 64u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32, // whose partials there are, of batch * heads * len
    first_row: u32, // of them
    heads: u32,
    len: u32,
    splits: u32, // partials per row; 0 where nothing is walked
    record: u32, // fours of dims of a partial
    first_chunk: u32, // of this gradient in it
    chunks: u32, // fours of dims of this gradient
    dim: u32,
    gradient_start: u32, // start and strides in elements
    gradient_batch: u32,
    gradient_head: u32,
    gradient_row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// Bound to be written, as `facts` may be beside it.
@group(0) @binding(11) var<storage, read_write> partials: array<vec4<f32>>; // [rows, splits, record]

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
    let index = workgroup * WORKGROUP + invocation;
    let row = index / params.chunks;
    let c = index % params.chunks;
    if (row >= params.rows) {
        return;
    }
    var sum = vec4(0.0);
    for (var split = 0u; split < params.splits; split++) {
        sum += partials[(row * params.splits + split) * params.record + params.first_chunk + c];
    }
    let place = row_place(params.first_row + row);
    let base = place.batch * params.gradient_batch + place.head * params.gradient_head + place.i * params.gradient_row;
    store_gradient(params.gradient_start + base, c, factor_of(params.first_row + row) * sum);
}
