// Optional operand, off: all classes of the row take part.
fn mask_at(row: u32, chunk: u32, inside: vec4<bool>) -> vec4<bool> {
    return inside;
}
