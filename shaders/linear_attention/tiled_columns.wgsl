// Rows of Efficient Attention in tiles: the softmax of the query over its features, whose logarithm q holds, times the state of
// each feature divided by that feature's own sum over the sequence.
const LOWEST: f32 = -1.0e38; // the exponent of nothing

fn mapped(c: u32, x: vec4<f32>) -> vec4<f32> {
    return exp(within(c, x, LOWEST));
}

// Features 4c to 4c + 3 of the rows; a vec4 holds one for each.
fn row_features(c: u32, base: u32) -> mat4x4<f32> {
    var features = mapped_rows(c);
    for (var f = 0u; f < 4u; f++) { // unroll
        // 0 where there is no key.
        let z = states[base + min(4u * c + f, FEATURES - 1u) * ROW + HEADERS - 1u].x;
        features[f] *= select(1.0 / z, 0.0, z == 0.0);
    }
    return features;
}
