// Labels: none, where only scores and thresholds count.
fn load_labels(row: u32, chunk: u32) -> vec4<f32> {
    return vec4(0.0);
}
