// Single features of the second-order Taylor map: with y = [1, x~], they are y_a y_b for a <= b, row by row, times
// 1/sqrt(2) where a = b > 0.
fn query_feature(base: u32, f: u32) -> f32 {
    let pair = pair_of(f);
    let y = vec2(q[base + max(pair.x, 1u) - 1u], q[base + max(pair.y, 1u) - 1u]);
    return product_of(pair, y);
}

fn key_feature(base: u32, f: u32) -> f32 {
    let pair = pair_of(f);
    let y = vec2(k[base + max(pair.x, 1u) - 1u], k[base + max(pair.y, 1u) - 1u]);
    return product_of(pair, y);
}

// Row a holds HEAD_DIM + 1 - a pairs.
fn pair_of(f: u32) -> vec2<u32> {
    var a = 0u;
    var rest = f;
    while (rest > HEAD_DIM - a) {
        rest -= HEAD_DIM + 1u - a;
        a++;
    }
    return vec2(a, a + rest);
}

fn product_of(pair: vec2<u32>, x: vec2<f32>) -> f32 {
    let y = select(params.input_scale * x, vec2(1.0), pair == vec2(0u));
    return select(1.0, 0.70710678, pair.x == pair.y && pair.x > 0u) * y.x * y.y;
}
