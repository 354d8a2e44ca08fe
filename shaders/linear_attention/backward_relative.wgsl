// Exponents of queries relative to the largest term of their rows, whose own is minus the key's to the last bit.
//
// One invocation owns one vec4 of one row.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;
const HEAD_DIM: u32 = 64u;
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const_assert HEAD_DIM >= 1u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    first_head: u32, // of this round, counted over batch * heads
    heads: u32,
    first_row: u32, // of this round
    rows: u32, // in this round
    vectors: u32, // heads of the round * rows * HEAD_CHUNKS
    q_start: u32, // starts and strides in elements; starts may wrap around
    q_batch: u32,
    q_head: u32,
    q_row: u32,
    numbers_start: u32, // in vec4s
    numbers_batch: u32,
    numbers_head: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<Elem>; // [batch, heads, len, HEAD_DIM]
@group(0) @binding(10) var<storage, read_write> features: array<vec4<f32>>; // [heads, rows, HEAD_CHUNKS]
@group(0) @binding(12) var<storage, read_write> numbers: array<vec4<f32>>; // [heads, rows]: unit, 1 / w, -do.o, unit

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    let index = workgroup * WORKGROUP + invocation;
    if (workgroup >= params.end_workgroup || index >= params.vectors) {
        return;
    }
    let c = index % HEAD_CHUNKS;
    let row = params.first_row + index / HEAD_CHUNKS % params.rows;
    let head_of_all = params.first_head + index / HEAD_CHUNKS / params.rows;
    let batch = head_of_all / params.heads;
    let head = head_of_all % params.heads;
    let unit = numbers[params.numbers_start + batch * params.numbers_batch + head * params.numbers_head + row];
    let base = params.q_start + batch * params.q_batch + head * params.q_head + row * params.q_row;
    features[index] = (load_q(base, c) - unit.x) - unit.w;
}
