// A gradient that is not asked for.
fn store_gradient(base: u32, chunk: u32, value: vec4<f32>) {
}
