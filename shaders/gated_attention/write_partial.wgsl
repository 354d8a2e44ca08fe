// The rows' results over one range of keys, for the combine kernel: first (row_max, sum, visible, 0), then o undivided.
@group(0) @binding(11) var<storage, read_write> partials: array<vec4<f32>>; // [batch, q_heads, q_len, splits, 1 + v_dim / 4]

fn write_rows(split: u32, first: u32) {
    for (var r = 0u; r < 4u; r++) {
        if (first + r < end_row) {
            let index = ((batch * params.q_heads + head) * params.q_len + first + r) * params.splits + split;
            let base = index * (1u + V_CHUNKS);
            if (v_first == 0u) {
                partials[base] = vec4(row_max[r], sum[r], visible[r], 0.0);
            }
            for (var b = 0u; b < V_BLOCK; b++) { // unroll if UNROLL
                if (b >= v_own) {
                    let o4 = o_block[b];
                    partials[base + 1u + v_first + b] = vec4(o4[0][r], o4[1][r], o4[2][r], o4[3][r]);
                }
            }
        }
    }
}
