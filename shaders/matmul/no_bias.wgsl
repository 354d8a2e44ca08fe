// Optional operand, off: nothing is added to the product.
fn bias_at(batch: u32, head: u32, row: u32, column: u32) -> vec4<f32> {
    return vec4(0.0);
}
