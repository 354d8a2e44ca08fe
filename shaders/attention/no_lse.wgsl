// Optional output, off: no log-sum-exp.
fn store_lse(batch: u32, head: u32, i: u32, row_max: f32, sum: f32) {
}
