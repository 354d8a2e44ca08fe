// Weights of eight keys for the four rows, from the products of their features; keys start at k0 and k1.
fn weigh(k0: vec4<u32>, k1: vec4<u32>, j: u32, edge: bool) -> Weights {
    var w: Weights;
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        let q4 = q_block[c];
        w.w0 += q4 * query_features(c, load_k(k0.x, c));
        w.w1 += q4 * query_features(c, load_k(k0.y, c));
        w.w2 += q4 * query_features(c, load_k(k0.z, c));
        w.w3 += q4 * query_features(c, load_k(k0.w, c));
        w.w4 += q4 * query_features(c, load_k(k1.x, c));
        w.w5 += q4 * query_features(c, load_k(k1.y, c));
        w.w6 += q4 * query_features(c, load_k(k1.z, c));
        w.w7 += q4 * query_features(c, load_k(k1.w, c));
    }
    return Weights(
        pair_weight(w.w0),
        pair_weight(w.w1),
        pair_weight(w.w2),
        pair_weight(w.w3),
        pair_weight(w.w4),
        pair_weight(w.w5),
        pair_weight(w.w6),
        pair_weight(w.w7),
    );
}
