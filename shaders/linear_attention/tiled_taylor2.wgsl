// Features in tiles under the second-order Taylor map. With y = [1, x~] they are y_a y_b for a <= b, row by row, times 1/sqrt(2)
// where a = b > 0; a pair's weight is the polynomial itself.
fn mapped(c: u32, x: vec4<f32>) -> vec4<f32> {
    return within(c, params.input_scale * x, 0.0);
}

// Features 4c to 4c + 3 of the rows; a vec4 holds one for each. 0 past the last.
fn row_features(c: u32, base: u32) -> mat4x4<f32> {
    var pair = pair_of(4u * c);
    var features: mat4x4<f32>;
    for (var f = 0u; f < 4u; f++) { // unroll
        let factor = select(1.0, 0.70710678, pair.x == pair.y && pair.x > 0u);
        features[f] = select(vec4(0.0), factor * row_element(pair.x) * row_element(pair.y), 4u * c + f < FEATURES);
        pair = select(vec2(pair.x, pair.y + 1u), vec2(pair.x + 1u), pair.y == HEAD_DIM);
    }
    return features;
}

// Row a holds HEAD_DIM + 1 - a pairs, so the pairs before it are a (2 HEAD_DIM + 3 - a) / 2: a root, corrected by what it is off.
fn pair_of(f: u32) -> vec2<u32> {
    let b = f32(2u * HEAD_DIM + 3u);
    var a = min(u32(max(0.5 * (b - sqrt(max(b * b - 8.0 * f32(f), 0.0))), 0.0)), HEAD_DIM);
    for (var i = 0u; i < 2u; i++) { // unroll
        a -= u32(pairs_before(a) > f);
        a += u32(a < HEAD_DIM && pairs_before(a + 1u) <= f);
    }
    return vec2(a, a + f - pairs_before(a));
}

fn pairs_before(a: u32) -> u32 {
    return a * (2u * HEAD_DIM + 3u - a) / 2u;
}

// y_e of the rows.
fn row_element(e: u32) -> vec4<f32> {
    if (e == 0u) {
        return vec4(1.0);
    }
    let dim = min(e, HEAD_DIM) - 1u;
    return params.input_scale
        * vec4(load_q_dim(q_at.x, dim), load_q_dim(q_at.y, dim), load_q_dim(q_at.z, dim), load_q_dim(q_at.w, dim));
}

// The weight of a pair from s = x~(q).x~(k).
fn pair_weight(s: vec4<f32>) -> vec4<f32> {
    return 1.0 + s * (1.0 + 0.5 * s);
}
