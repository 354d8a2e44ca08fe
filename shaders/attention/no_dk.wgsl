// Output, off: no gradient of k.
fn store_dk(base: u32, chunk: u32, value: vec4<f32>) {
}
