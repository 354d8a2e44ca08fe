// Weights of eight keys for the four rows, from the products of their features.
fn weigh(keys: EightKeys, edge: bool) -> Weights {
    var w: array<vec4<f32>, 8>;
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        let q4 = q_block[c];
        let k8 = hold_keys(keys.k_base, keys.j, keys.last, c);
        for (var i = 0u; i < 8u; i++) { // unroll
            w[i] = fma(q4[3], vec4(k8[i].w), fma(q4[2], vec4(k8[i].z), fma(q4[1], vec4(k8[i].y), fma(q4[0], vec4(k8[i].x), w[i]))));
        }
    }
    return Weights(
        pair_weight(w[0]),
        pair_weight(w[1]),
        pair_weight(w[2]),
        pair_weight(w[3]),
        pair_weight(w[4]),
        pair_weight(w[5]),
        pair_weight(w[6]),
        pair_weight(w[7]),
    );
}
