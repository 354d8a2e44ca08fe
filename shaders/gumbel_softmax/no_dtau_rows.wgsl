// Optional gradient, off: no dtau.
fn put_dtau(row: u32, value: f32) {
}
