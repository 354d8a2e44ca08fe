// Rows under a map that takes each dim for itself.
fn query_features(chunk: u32, x: vec4<f32>) -> vec4<f32> {
    return within(chunk, feature(x), 0.0);
}

fn add_state(base: u32) {
    let last = base + (FEATURES - 1u) * ROW;
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        let q4 = load_rows(c);
        add_features(q4[0], q4[1], q4[2], q4[3], base + 4u * c * ROW, last);
    }
}

// The weight of a pair from the product of its features.
fn pair_weight(s: vec4<f32>) -> vec4<f32> {
    return s;
}
