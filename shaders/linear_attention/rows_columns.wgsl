// Rows of Efficient Attention: the softmax of the query over its features, whose logarithm q holds, times the state of
// each feature divided by that feature's own sum over the sequence.
const LOWEST: f32 = -1.0e38; // the exponent of nothing

fn query_features(chunk: u32, x: vec4<f32>) -> vec4<f32> {
    return within(chunk, x, LOWEST);
}

fn add_state(base: u32) {
    let last = base + (FEATURES - 1u) * ROW;
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        let q4 = load_rows(c);
        let at = base + 4u * c * ROW;
        let w0 = exp(q4[0]) * reciprocal(min(at, last));
        let w1 = exp(q4[1]) * reciprocal(min(at + ROW, last));
        let w2 = exp(q4[2]) * reciprocal(min(at + 2u * ROW, last));
        let w3 = exp(q4[3]) * reciprocal(min(at + 3u * ROW, last));
        add_features(w0, w1, w2, w3, at, last);
    }
}

// One over the feature's sum; 0 where there is no key.
fn reciprocal(at: u32) -> f32 {
    let z = states[at + HEADERS - 1u].x;
    return select(1.0 / z, 0.0, z == 0.0);
}

fn finish(o4: mat4x4<f32>) -> mat4x4<f32> {
    return o4;
}
