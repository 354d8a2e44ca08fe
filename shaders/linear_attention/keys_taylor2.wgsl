// Features of keys under the second-order Taylor map. With y = [1, x~] they are y_a y_b for a <= b, row by row, times
// 1/sqrt(2) where a = b > 0.
var<private> pair_a: vec4<u32>;
var<private> pair_b: vec4<u32>;
var<private> factor: vec4<f32>;

fn begin_features(first_feature: u32, k_base: u32, begin: u32, end: u32) {
    // Row a holds HEAD_DIM + 1 - a pairs.
    var a = 0u;
    var rest = first_feature;
    while (rest > HEAD_DIM - a) {
        rest -= HEAD_DIM + 1u - a;
        a++;
    }
    var b = a + rest;
    for (var r = 0u; r < 4u; r++) {
        pair_a[r] = a;
        pair_b[r] = b;
        factor[r] = select(1.0, 0.70710678, a == b && a > 0u);
        // Past the last pair the last is repeated, and not stored.
        let end_of_row = b == HEAD_DIM;
        a = min(a + u32(end_of_row), HEAD_DIM);
        b = select(b + 1u, a, end_of_row);
    }
}

// Four features of the key at `base`.
fn key_features(base: u32) -> vec4<f32> {
    return factor
        * vec4(element(base, pair_a.x), element(base, pair_a.y), element(base, pair_a.z), element(base, pair_a.w))
        * vec4(element(base, pair_b.x), element(base, pair_b.y), element(base, pair_b.z), element(base, pair_b.w));
}

// y_e of the key at `base`.
fn element(base: u32, e: u32) -> f32 {
    let x = params.input_scale * load_k_dim(base, max(e, 1u) - 1u);
    return select(x, 1.0, e == 0u);
}

fn key_maximum() -> vec4<f32> {
    return vec4(0.0);
}
