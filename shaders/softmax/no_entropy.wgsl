// Optional output, off: no entropy.
fn store_entropy(nats: f32) {
}
