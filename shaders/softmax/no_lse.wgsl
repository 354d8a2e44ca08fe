// Optional output, off: no log-sum-exp.
fn store_lse(bits: u32) {
}
