// Optional operand: a number for each row, or one for all, that the scale is multiplied with.
@group(0) @binding(3) var<storage, read> row_scale: array<f32>; // [rows] or [1]

fn row_scale_of(own: u32) -> f32 {
    return row_scale[params.row_scale_start + own * params.row_scale_stride];
}
