// What the gradients of a row's classes have in common: both logarithms and the gradient that comes in, together in one place.
//
// An invocation owns a row.
// Workgroup memory: 4 bytes an invocation where sums are wanted. Features: none.
const WORKGROUP: u32 = 256u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    first_row: u32, // of those whose states are wanted, and the row after the last
    end_row: u32,
    first_sum: u32, // sums of rows before those of these
    factor: f32, // one over the rows of a mean
    lse_neg_start: u32, // starts and strides in elements
    lse_neg_stride: u32,
    lse_pos_start: u32,
    lse_pos_stride: u32,
    dloss_start: u32,
    dloss_stride: u32, // 0 where all rows have one
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> lse_neg: array<u32>; // [rows], f32
@group(0) @binding(2) var<storage, read> lse_pos: array<u32>; // [rows], f32
@group(0) @binding(3) var<storage, read> dloss: array<f32>; // [rows] or [1]
@group(0) @binding(4) var<storage, read_write> row_states: array<vec4<f32>>; // lse_neg, lse_pos, gradient, 1 if whole

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
    let index = params.first_row + workgroup * WORKGROUP + invocation;
    let row = min(index, params.end_row - 1u); // past the last, a row is read and not written
    let bits = vec2(
        lse_neg[params.lse_neg_start + row * params.lse_neg_stride],
        lse_pos[params.lse_pos_start + row * params.lse_pos_stride],
    );
    let gradient = params.factor * dloss[params.dloss_start + row * params.dloss_stride];
    // A broken row, whose logarithms are no numbers, is told by its bits.
    let whole = all((bits & vec2(0x7fffffffu)) < vec2(0x7f800000u));
    let lse = bitcast<vec2<f32>>(select(vec2(0u), bits, whole));
    if (index < params.end_row) {
        row_states[row - params.first_row] = vec4(lse, gradient, select(0.0, 1.0, whole));
    }
    add_rows(workgroup, invocation, select(0.0, gradient * (exp(-lse.x) - exp(-lse.y)), whole && index < params.end_row));
}
