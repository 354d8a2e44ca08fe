// Optional output, off: no predicted.
fn store_predicted(row: u32, bits: u32) {
}
