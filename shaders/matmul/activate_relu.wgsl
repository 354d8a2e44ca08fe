// The activation: max(x, 0).
fn activate(x: vec4<f32>) -> vec4<f32> {
    return max(x, vec4(0.0));
}
