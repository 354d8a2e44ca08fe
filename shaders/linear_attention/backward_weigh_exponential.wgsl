// Gradients of exponents: weights that are products, each times all terms of its pair.
fn weigh(j: u32, last: u32, k_base: u32) -> PerScore {
    return divided(scores(j, last, k_base), j, last);
}

fn queries(part: u32, c: u32) -> mat4x4<f32> {
    return mapped_rows(c);
}

fn key_chunk(base: u32, c: u32) -> vec4<f32> {
    return mapped(c, load_k(base, c));
}

fn add_pairs(weights: PerScore, j: u32, last: u32, edge: bool, v_base: u32) {
    for (var slab = 0u; slab < KEYS / SLAB; slab++) {
        workgroupBarrier();
        put_weights(weights, slab);
        bring_values(j + slab * SLAB, last, false, v_base);
        workgroupBarrier();
        for (var term = 0u; term < SLAB; term++) {
            for (var c = 0u; c < COLUMNS; c++) { // unroll
                let other = right[term / 4u][term % 4u][c][x];
                for (var g = 0u; g < GROUPS; g++) { // unroll
                    let weight = left[term / 4u][term % 4u][g][y];
                    for (var r = 0u; r < 4u; r++) { // unroll
                        // A row that does not see a pair has nothing of it, not even 0 times NaN.
                        let all = exp(min(own_tile[4u * g + r][c] + other, vec4(0.0)));
                        let seen = select(all, vec4(0.0), edge && weight[r] == 0.0);
                        o_tile[4u * g + r][c] = fma(vec4(weight[r]), seen, o_tile[4u * g + r][c]);
                    }
                }
            }
        }
    }
}

fn value_chunk(base: u32, c: u32) -> vec4<f32> {
    return load_v(base, min(chunk_of(c), O_CHUNKS - 1u));
}
