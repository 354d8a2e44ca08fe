// Optional operand, off: nothing is added.
fn biases_of(first: u32, inside: vec4<bool>) -> vec4<f32> {
    return vec4(0.0);
}
