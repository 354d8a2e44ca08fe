// Weights of values from exponents: q holds those of the rows, k those of what they see, and of a pair's
// terms none that a row sees is above 1.
const LOWEST: f32 = -1.0e38; // the exponent of nothing

fn mapped(c: u32, x: vec4<f32>) -> vec4<f32> {
    return within(c, x, LOWEST);
}

fn begin_rows(base: u32, q_base: u32, last_row: u32) {}

// Features 4c to 4c + 3 of the rows, times the exponential of the state's maxima; a vec4 holds one for each.
fn row_features(c: u32, base: u32) -> mat4x4<f32> {
    var features = mapped_rows(c);
    for (var f = 0u; f < 4u; f++) { // unroll
        let maximum = states[base + min(4u * c + f, FEATURES - 1u) * ROW + HEADERS - 1u].y;
        features[f] = exp(min(features[f] + maximum, vec4(0.0)));
    }
    return features;
}

// The weight of a pair from the sum of its terms.
fn pair_weight(s: vec4<f32>) -> vec4<f32> {
    return s;
}
