// Rows under an exponential map, whose weights are relative to their unit.
fn finish(value: vec4<f32>, at: u32, g: u32, r: u32) -> vec4<f32> {
    let unit = numbers[at].x + numbers[at].w;
    if (NORMALIZED) {
        // Where eps outweighs the sum beyond what f32 holds, the row is 0.
        let log_ratio = params.log_eps - unit;
        return value * (select(1.0, 0.0, log_ratio > 80.0) / (sum[g][r] + exp(min(log_ratio, 80.0))));
    }
    // In two steps, as exp(unit) may overflow where its product with a small sum does not.
    return value * exp(0.5 * unit) * exp(0.5 * unit);
}
