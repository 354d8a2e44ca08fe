// Optional operand, off: every row has the scale of the params.
fn row_scale_of(rows: Rows) -> vec4<f32> {
    return vec4(1.0);
}
