// Rows under the second-order Taylor map. With y = [1, x~], its features are y_a y_b for a <= b, row by row, times
// 1/sqrt(2) where a = b > 0; a pair's weight is the polynomial itself.
var<private> x_block: array<mat4x4<f32>, HEAD_CHUNKS>; // x~ of the four rows

fn query_features(chunk: u32, x: vec4<f32>) -> vec4<f32> {
    return within(chunk, params.input_scale * x, 0.0);
}

fn add_state(base: u32) {
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        x_block[c] = load_rows(c);
    }
    let last = base + (FEATURES - 1u) * ROW;
    var pair = vec2(0u, 0u);
    for (var f = 0u; f < FEATURES; f += 4u) {
        let pair1 = next_pair(pair);
        let pair2 = next_pair(pair1);
        let pair3 = next_pair(pair2);
        add_features(
            pair_feature(pair),
            pair_feature(pair1),
            pair_feature(pair2),
            pair_feature(pair3),
            base + f * ROW,
            last,
        );
        pair = next_pair(pair3);
    }
}

fn next_pair(pair: vec2<u32>) -> vec2<u32> {
    return select(vec2(pair.x, pair.y + 1u), vec2(pair.x + 1u), pair.y == HEAD_DIM);
}

// 0 past the last pair.
fn pair_feature(pair: vec2<u32>) -> vec4<f32> {
    if (pair.x > HEAD_DIM) {
        return vec4(0.0);
    }
    let factor = select(1.0, 0.70710678, pair.x == pair.y && pair.x > 0u);
    return factor * row_element(pair.x) * row_element(pair.y);
}

// y_e of the four rows.
fn row_element(e: u32) -> vec4<f32> {
    if (e == 0u) {
        return vec4(1.0);
    }
    return x_block[(e - 1u) / 4u][(e - 1u) % 4u];
}

// The weight of a pair from s = x~(q).x~(k).
fn pair_weight(s: vec4<f32>) -> vec4<f32> {
    return 1.0 + s * (1.0 + 0.5 * s);
}
