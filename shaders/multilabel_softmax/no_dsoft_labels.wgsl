// Optional output, off: no the gradient of soft labels.
fn store_dsoft_labels(row: u32, chunk: u32, value: vec4<f32>) {
}
