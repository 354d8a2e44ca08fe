// Optional output, off: no the classes that are predicted.
fn store_predictions(row: u32, chunk: u32, value: vec4<f32>) {
}
