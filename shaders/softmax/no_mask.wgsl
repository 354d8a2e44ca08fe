// Optional operand, off: no mask hides a column.
fn mask_at(columns: vec4<u32>) -> vec4<bool> {
    return vec4(true);
}
