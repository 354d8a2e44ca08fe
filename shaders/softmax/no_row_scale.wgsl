// Optional operand, off: every row has the scale of the params.
fn row_scale_of(own: u32) -> f32 {
    return 1.0;
}
