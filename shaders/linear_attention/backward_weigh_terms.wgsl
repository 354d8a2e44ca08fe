// Weights that are sums of exponentials.
fn weigh(j: u32, last: u32, k_base: u32) -> PerScore {
    let keys_at = key_places(j, last, k_base, params.k_row);
    var s: PerScore;
    for (var slab = 0u; slab < HEAD_SLABS; slab++) {
        workgroupBarrier();
        bring_queries(slab, HEAD_CHUNKS);
        for (var part = 0u; part < KEY_PARTS; part++) { // unroll
            bring_keys(slab, part, keys_at[part], HEAD_CHUNKS);
        }
        workgroupBarrier();
        for (var c = 0u; c < min(SLAB_CHUNKS, HEAD_CHUNKS - slab * SLAB_CHUNKS); c++) {
            for (var d = 0u; d < 4u; d++) { // unroll
                let keys = right[c][d][0][x];
                for (var g = 0u; g < GROUPS; g++) { // unroll
                    let query = left[c][d][g][y];
                    for (var i = 0u; i < OWN_KEYS; i++) { // unroll
                        s[i][g] += exp(min(query + keys[i], vec4(0.0)));
                    }
                }
            }
        }
    }
    return divided(s, j, last);
}

fn queries(part: u32, c: u32) -> mat4x4<f32> {
    return mapped_rows(c);
}

fn key_chunk(base: u32, c: u32) -> vec4<f32> {
    return mapped(c, load_k(base, c));
}
