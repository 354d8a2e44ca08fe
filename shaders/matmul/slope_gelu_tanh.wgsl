// The slope of x g, g = (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3): g + 2 x u' g (1 - g).
fn slope(x: vec4<f32>) -> vec4<f32> {
    // Beyond 10 the slope is 0 or 1 to the last bit, and the cube might overflow.
    let y = clamp(x, vec4(-10.0), vec4(10.0));
    let u = 0.7978845608 * y * (1.0 + 0.044715 * y * y);
    let t = exp(-2.0 * abs(u));
    let large = 1.0 / (1.0 + t); // the larger of g and 1 - g
    let bend = 2.0 * 0.7978845608 * y * (1.0 + 0.134145 * y * y);
    return large * (select(t, vec4(1.0), y >= vec4(0.0)) + bend * (t * large));
}
