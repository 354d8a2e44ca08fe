// The activation: max(x, 0), and NaN of NaN. Negative by the bits: a driver may make a maximum of a comparison, and that drops NaN.
fn activate(x: vec4<f32>) -> vec4<f32> {
    let negative = bitcast<vec4<u32>>(x) - vec4(0x80000000u) <= vec4(0x7f800000u);
    return select(x, vec4(0.0), negative);
}
