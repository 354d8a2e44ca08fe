// The slope of x g, g = 1 / (1 + exp(-x)): g (1 + x (1 - g)).
fn slope(x: vec4<f32>) -> vec4<f32> {
    let y = clamp(x, vec4(-100.0), vec4(100.0)); // beyond, it is 0 or 1
    let t = exp(-abs(y));
    let large = 1.0 / (1.0 + t); // the larger of g and 1 - g
    let positive = y >= vec4(0.0);
    let g = select(t, vec4(1.0), positive) * large;
    return g * (1.0 + y * (select(vec4(1.0), t, positive) * large));
}
