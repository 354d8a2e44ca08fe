// The slope of no activation.
fn slope(x: vec4<f32>) -> vec4<f32> {
    return vec4(1.0);
}
