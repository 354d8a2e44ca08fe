// Optional output, off: no logits.
fn store_logits(row: u32, first: u32, four: vec4<f32>, inside: vec4<bool>) {
}
