// Optional operand, off: no gate.
fn gate(batch: u32, head: u32, i: u32, chunk: u32) -> vec4<f32> {
    return vec4(1.0);
}
