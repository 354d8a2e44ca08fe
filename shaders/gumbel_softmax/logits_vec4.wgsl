// Four logits of a row that starts at element `base`, which is a multiple of four.
fn load_logits(base: u32, chunk: u32) -> vec4<f32> {
    return logits[base / 4u + chunk];
}
