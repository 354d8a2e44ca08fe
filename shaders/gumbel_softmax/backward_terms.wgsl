// Backward: what four columns add to the sums.
fn sums_of(row: Row, chunk: u32, see: vec4<bool>, weights: vec4<f32>, below: vec4<f32>) -> Sums {
    let dy = load_dy4(row, chunk, see);
    let lower = weights * below;
    let one = vec4(1.0);
    return vec4(dot(weights, one), dot(weights, dy), dot(lower, one), dot(lower, dy));
}
