// Output, off: no gradient of v.
fn store_dv(base: u32, chunk: u32, value: vec4<f32>) {
}
