// Optional output, off: no the gradient of the scores.
fn store_dscores(row: u32, chunk: u32, value: vec4<f32>) {
}
