// Optional output, off: no how probable classes are.
fn store_probabilities(row: u32, chunk: u32, value: vec4<f32>) {
}
