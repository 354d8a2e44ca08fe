// What a state adds to the gradients of features: terms are value dims, with the transpose of the state on the right.
const STATE_CHUNKS: u32 = SLAB_CHUNKS * V_CHUNKS; // in a slab, four features each
const STATE_PARTS: u32 = (STATE_CHUNKS + WORKGROUP - 1u) / WORKGROUP; // of them, an invocation brings so many

fn add_state(base: u32, q_base: u32, last_row: u32) {
    for (var slab = 0u; slab < HEAD_SLABS; slab++) {
        workgroupBarrier();
        if (has_left(0u)) {
            let chunk = SLAB_CHUNKS * slab + left_chunk(0u);
            var dims = mat4x4<f32>();
            if (HEAD_SLABS * SLAB_CHUNKS == HEAD_CHUNKS || chunk < HEAD_CHUNKS) {
                dims = mapped_rows(chunk);
            }
            put_left(0u, dims);
        }
        for (var part = 0u; part < STATE_PARTS; part++) { // unroll
            let i = part * WORKGROUP + invocation;
            if ((part + 1u) * WORKGROUP <= STATE_CHUNKS || i < STATE_CHUNKS) {
                let c = chunk_at(i, V_CHUNKS);
                let group = group_at(i, V_CHUNKS);
                let chunk = min(SLAB_CHUNKS * slab + c, HEAD_CHUNKS - 1u);
                var features: mat4x4<f32>;
                for (var f = 0u; f < 4u; f++) { // unroll
                    features[f] = states[feature_at(base, 4u * chunk_of(group) + f) + HEADERS + chunk];
                }
                let dims = transpose(features);
                for (var d = 0u; d < 4u; d++) { // unroll
                    right[c][d][group / WIDTH][group % WIDTH] = dims[d];
                }
            }
        }
        workgroupBarrier();
        add_slab();
    }

    // The sums of weights, and what the features of a state are relative to.
    for (var c = 0u; c < COLUMNS; c++) { // unroll
        let chunk = chunk_of(x + c * WIDTH);
        var z: vec4<f32>;
        var maximum: vec4<f32>;
        for (var f = 0u; f < 4u; f++) { // unroll
            let header = states[feature_at(base, 4u * chunk + f) + HEADERS - 1u];
            z[f] = header.x;
            maximum[f] = header.y;
        }
        for (var g = 0u; g < GROUPS; g++) { // unroll
            for (var r = 0u; r < 4u; r++) { // unroll
                let own = with_divisor(o_tile[4u * g + r][c], z, g, r);
                o_tile[4u * g + r][c] = own * state_factor(4u * g + r, c, z, maximum);
            }
        }
    }
}

// Where a feature of a state starts; the last is repeated.
fn feature_at(base: u32, feature: u32) -> u32 {
    return base + min(feature, FEATURES - 1u) * ROW;
}

fn mapped(c: u32, x: vec4<f32>) -> vec4<f32> {
    return within(c, x, 0.0);
}
