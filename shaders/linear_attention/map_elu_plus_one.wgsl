// elu(x) + 1, and NaN of NaN.
fn feature(x: vec4<f32>) -> vec4<f32> {
    return select(x + 1.0, exp(min(x, vec4(0.0))), x < vec4(0.0));
}

// Its derivative.
fn slope(x: vec4<f32>) -> vec4<f32> {
    return select(vec4(1.0), exp(min(x, vec4(0.0))), x < vec4(0.0));
}
