// Optional operand, off: every row has the scale of the params.
fn row_scale_of(batch: u32, head: u32, row: vec4<u32>) -> vec4<f32> {
    return vec4(1.0);
}
