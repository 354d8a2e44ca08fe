// The activation: x / (1 + exp(-x)), with an exponential that cannot overflow.
fn activate(x: vec4<f32>) -> vec4<f32> {
    let t = exp(-abs(x));
    return x * select(t, vec4(1.0), x >= vec4(0.0)) / (1.0 + t);
}
