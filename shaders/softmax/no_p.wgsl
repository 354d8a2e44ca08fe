// Of a dispatch that writes no p.
fn store_p(columns: vec4<u32>, value: vec4<f32>, inside: vec4<bool>) {
}
