// Optional operand, off: no bias.
fn add_bias(s: ptr<function, vec4<f32>>, rows: Rows, j: vec4<u32>, see: vec4<bool>) -> vec4<bool> {
    return see;
}
