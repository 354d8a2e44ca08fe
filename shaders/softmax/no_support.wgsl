// Optional output, off: no support.
fn store_support(count: u32) {
}
