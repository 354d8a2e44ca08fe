// Optional output, off: no lse.
fn store_lse(row: u32, bits: u32) {
}
