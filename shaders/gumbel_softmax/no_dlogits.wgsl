// Optional gradient, off: no dlogits.
fn put_dlogits(row: Row, state: State, mean: f32, chunk: u32) {
}
