// Optional outputs, off: the two logarithms.
fn write_lse(row: u32, bits: vec2<u32>) {
}
