// Optional operand, off: no mask hides a column.
fn mask_at(columns: vec4<u32>, inside: vec4<bool>) -> vec4<bool> {
    return inside;
}
