// The activation: x (1 + tanh(u)) / 2 = x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3). WGSL's tanh is too coarse.
// Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, section 2.
fn activate(x: vec4<f32>) -> vec4<f32> {
    // Beyond 10 the gate is 0 or 1 to the last bit, and the cube might overflow.
    let y = clamp(x, vec4(-10.0), vec4(10.0));
    let u = 0.7978845608 * y * (1.0 + 0.044715 * y * y);
    let t = exp(-2.0 * abs(u));
    return x * select(t, vec4(1.0), x >= vec4(0.0)) / (1.0 + t);
}
