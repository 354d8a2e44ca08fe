// The rows of listed classes one after the other, in f32: those that lie in one tensor of the class weights. A number that is no
// class has rows of NaN.
//
// One invocation owns four numbers of a row.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const ELSEWHERE: u32 = 0xffffffffu;
const NAN: u32 = 0x7fc00000u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    count: u32, // rows
    dim: u32,
    chunks: u32, // ceil(dim / 4)
    centres: u32,
    all_classes: u32,
    tensor_first: u32, // the tensor's classes
    tensor_classes: u32,
    sampled_start: u32, // in elements
    sampled_stride: u32,
    x_start: u32,
    x_row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Elem>; // [tensor_classes * centres, dim]
@group(0) @binding(2) var<storage, read_write> gathered: array<vec4<f32>>; // [count, chunks]

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
    let own_row = row_of(row);
    if (own_row != ELSEWHERE) {
        gathered[index] = load_four(params.x_start + own_row * params.x_row, 4u * (index % params.chunks));
        return;
    }
    let no_class = number_of(row / params.centres) >= params.all_classes;
    if (no_class && params.tensor_first == 0u) {
        gathered[index] = vec4(bitcast<f32>(select(0u, NAN, no_class)));
    }
}
