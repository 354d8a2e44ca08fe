// Optional output, off: no entropy.
fn store_entropy(row: u32, bits: u32) {
}
