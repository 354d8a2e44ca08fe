// A tile of a state of mixed chunks, times a factor. Chunks of value dims before `own` belong to the block before.
fn write_state(place: u32, first_dim: u32, first: u32, own: u32, factor: f32) {
    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var r = 0u; r < 4u; r++) { // unroll
            let dim = first_dim + row_of(g) + r;
            for (var c = 0u; c < COLUMNS; c++) { // unroll
                let chunk = x + c * WIDTH;
                if (dim < 4u * KEY_CHUNKS && chunk >= own && chunk < V_CHUNKS) {
                    states[(place + dim) * params.state_chunks + first + chunk] = factor * o_tile[4u * g + r][c];
                }
            }
        }
    }
}
