// Optional output, off: no others.
fn store_others(row: u32, bits: u32) {
}
