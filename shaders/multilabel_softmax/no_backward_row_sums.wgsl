// Optional output, off: the gradient of one threshold.
fn add_rows(workgroup: u32, invocation: u32, own: f32) {
}
