// Weights of eight keys for the four rows, from the products of the features in q_block with the same of k, whose rows
// start at k0 and k1.
fn weigh(k0: vec4<u32>, k1: vec4<u32>, j: u32, edge: bool, invocation: u32) -> Weights {
    var w: Weights;
    for (var first = 0u; first < HEAD_CHUNKS; first += BLOCK) {
        workgroupBarrier();
        for (var c = invocation; c < min(BLOCK, HEAD_CHUNKS - first); c += WORKGROUP) {
            let chunk = first + c;
            keys[KEYS * c] = query_features(chunk, load_k(k0.x, chunk));
            keys[KEYS * c + 1u] = query_features(chunk, load_k(k0.y, chunk));
            keys[KEYS * c + 2u] = query_features(chunk, load_k(k0.z, chunk));
            keys[KEYS * c + 3u] = query_features(chunk, load_k(k0.w, chunk));
            keys[KEYS * c + 4u] = query_features(chunk, load_k(k1.x, chunk));
            keys[KEYS * c + 5u] = query_features(chunk, load_k(k1.y, chunk));
            keys[KEYS * c + 6u] = query_features(chunk, load_k(k1.z, chunk));
            keys[KEYS * c + 7u] = query_features(chunk, load_k(k1.w, chunk));
        }
        workgroupBarrier();
        w = add_products(w, first);
    }
    return seen_weights(
        j,
        Weights(
            pair_weight(w.w0),
            pair_weight(w.w1),
            pair_weight(w.w2),
            pair_weight(w.w3),
            pair_weight(w.w4),
            pair_weight(w.w5),
            pair_weight(w.w6),
            pair_weight(w.w7),
        ),
    );
}
