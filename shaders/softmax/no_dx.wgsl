// Optional output, off: no gradient of x.
fn store_dx(columns: vec4<u32>, value: vec4<f32>, inside: vec4<bool>) {
}
