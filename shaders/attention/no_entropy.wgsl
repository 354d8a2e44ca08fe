// Optional output, off: no entropy.
fn store_entropy(batch: u32, head: u32, i: u32, sum: f32, weighted: f32) {
}
