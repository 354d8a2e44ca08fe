// Optional output, off: noise is not stored.
fn put_noise(row: Row, chunk: u32) {
}
