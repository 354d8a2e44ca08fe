// Optional output, off: no y.
fn put_y(row: Row, state: State, chunk: u32) {
}
