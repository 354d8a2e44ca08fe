// What a state adds to the rows of a tile: terms are features, with the state on the right.

// o_tile += phi(Q) S, sum += phi(Q) z, with the state that starts at `base`.
fn add_state(base: u32, q_base: u32, last_row: u32) {
    begin_rows(base, q_base, last_row);
    for (var slab = 0u; slab < FEATURE_SLABS; slab++) {
        workgroupBarrier();
        if (has_left(0u)) {
            let chunk = SLAB_CHUNKS * slab + left_chunk(0u);
            var features = mat4x4<f32>();
            if (FEATURE_SLABS * SLAB_CHUNKS == FEATURE_CHUNKS || chunk < FEATURE_CHUNKS) {
                features = row_features(chunk, base);
            }
            put_left(0u, features);
        }
        // A feature past the last weighs nothing.
        for (var part = 0u; part < RIGHT_PARTS; part++) { // unroll
            let i = part * WORKGROUP + invocation;
            if (has_right(part)) {
                put_right(i, states[base + min(slab * SLAB + i / V_CHUNKS, FEATURES - 1u) * ROW + HEADERS + state_chunk(i % V_CHUNKS)]);
            }
        }
        workgroupBarrier();
        add_slab();
        for (var turn = 0u; turn < (SLAB + WIDTH - 1u) / WIDTH; turn++) { // unroll
            let f = turn * WIDTH + x;
            if (SLAB % WIDTH == 0u || f < SLAB) {
                let z = states[base + min(slab * SLAB + f, FEATURES - 1u) * ROW + HEADERS - 1u].x;
                for (var g = 0u; g < GROUPS; g++) { // unroll
                    sum[g] = fma(left[f / 4u][f % 4u][g][y], vec4(z), sum[g]);
                }
            }
        }
    }
}

// The state's chunk of a tile's; the last is repeated.
fn state_chunk(c: u32) -> u32 {
    return select(min(chunk_of(c), O_CHUNKS - 1u), c, O_CHUNKS == V_CHUNKS);
}
