// o_tile += factor rows state, the rows those of q_lin or k_lin of the tile: `linear_rows(part, c)` is chunk c of the four that this
// invocation brings.
fn add_state(state: u32, factor: f32) {
    for (var slab = 0u; slab < HEAD_SLABS; slab++) {
        workgroupBarrier();
        for (var part = 0u; part < LEFT_PARTS; part++) { // unroll
            if (has_left(part)) {
                let c = slab * SLAB_CHUNKS + left_chunk(part);
                var dims = mat4x4<f32>();
                if (HEAD_SLABS * SLAB_CHUNKS == HEAD_CHUNKS || c < KEY_CHUNKS) {
                    dims = factor * linear_rows(part, c);
                }
                put_left(part, dims);
            }
        }
        // Dims past the last are times 0.
        for (var part = 0u; part < RIGHT_PARTS; part++) { // unroll
            let i = part * WORKGROUP + invocation;
            if (has_right(part)) {
                let dim = min(slab * SLAB + i / V_CHUNKS, 4u * KEY_CHUNKS - 1u);
                put_right(i, states[state + dim * params.state_chunks + i % V_CHUNKS]);
            }
        }
        workgroupBarrier();
        add_slab();
    }
}
