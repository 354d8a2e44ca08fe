// The rows of features by their norms, in f32, as both products read them: 0 in place of a row that adds nothing, for it may be NaN.
//
// One invocation owns four numbers of a row.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;
const NORMALIZE: bool = true;
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    count: u32, // rows
    dim: u32,
    chunks: u32, // ceil(dim / 4)
    x_start: u32, // in elements
    x_row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Elem>; // [count, dim]
@group(0) @binding(3) var<storage, read_write> row_norms: array<f32>; // [count], inverse
@group(0) @binding(4) var<storage, read_write> units: array<vec4<f32>>; // [count, chunks]

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
    let row = index / params.chunks;
    var four = load_four(params.x_start + row * params.x_row, 4u * (index % params.chunks));
    if (NORMALIZE) {
        four *= row_norms[row];
    }
    units[index] = select(vec4(0.0), four, row_gradients[row].kind == WHOLE);
}
