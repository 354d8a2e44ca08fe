// Optional output, off: no class.
fn store_predicted(row: u32, broken: bool) {
}
