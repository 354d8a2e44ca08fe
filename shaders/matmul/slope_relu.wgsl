// The slope of max(x, 0): 0 at 0.
fn slope(x: vec4<f32>) -> vec4<f32> {
    return select(vec4(0.0), vec4(1.0), x > vec4(0.0));
}
