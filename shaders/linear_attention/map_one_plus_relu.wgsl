// 1 + max(x, 0).
fn feature(x: vec4<f32>) -> vec4<f32> {
    return 1.0 + max(x, vec4(0.0));
}
