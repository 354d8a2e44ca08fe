// Forward: what four columns add to the sums.
fn sums_of(row: Row, chunk: u32, see: vec4<bool>, weights: vec4<f32>, below: vec4<f32>) -> Sums {
    return (weights.x + weights.y) + (weights.z + weights.w);
}
