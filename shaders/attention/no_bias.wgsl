// Optional operand, off: no bias.
fn add_bias(s: ptr<function, vec4<f32>>, batch: u32, head: u32, row: vec4<u32>, j: u32, see: vec4<bool>) -> vec4<bool> {
    return see;
}
