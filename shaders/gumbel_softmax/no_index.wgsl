// Optional output, off: no class drawn.
fn put_index(row: u32, drawn: u32) {
}
