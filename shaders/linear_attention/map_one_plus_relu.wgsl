// 1 + max(x, 0), and NaN of NaN. Negative by the bits: a driver may make a maximum of a comparison, and that drops NaN.
fn feature(x: vec4<f32>) -> vec4<f32> {
    let negative = bitcast<vec4<u32>>(x) - vec4(0x80000000u) <= vec4(0x7f800000u);
    return 1.0 + select(x, vec4(0.0), negative);
}

// Its derivative: 0 at 0.
fn slope(x: vec4<f32>) -> vec4<f32> {
    return select(vec4(0.0), vec4(1.0), x > vec4(0.0));
}
