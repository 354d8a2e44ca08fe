// Gathers what rows have of their own, so that the kernels that walk columns bind one buffer for it.
//
// An invocation owns a row. A label that is ignored takes its loss out; one that is no column makes it NaN.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32,
    columns: u32,
    minus_infinity: u32, // as bits
    alpha: f32, // where no tensor has it
    row_scale_start: u32, // starts and strides in elements
    row_scale_stride: u32,
    alpha_start: u32,
    alpha_stride: u32,
    labels_start: u32,
    labels_stride: u32,
    dloss_start: u32,
    dloss_stride: u32,
    dlse_start: u32,
    dlse_stride: u32,
    dentropy_start: u32,
    dentropy_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(15) var<storage, read_write> numbers: array<vec4<u32>>; // [rows, 2]

var<private> row: u32;

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
    row = workgroup * WORKGROUP + invocation;
    if (row >= params.rows) {
        return;
    }
    let label = label_of();
    var dloss_bits = bitcast<u32>(dloss_of());
    dloss_bits = select(dloss_bits, params.minus_infinity | 0x400000u, label >= params.columns);
    dloss_bits = select(dloss_bits, 0u, label == 0xffffffffu);
    numbers[2u * row] = vec4(bitcast<u32>(row_scale_of(row)), bitcast<u32>(alpha_of()), label, dloss_bits);
    numbers[2u * row + 1u] = vec4(bitcast<u32>(dlse_of()), bitcast<u32>(dentropy_of()), 0u, 0u);
}
