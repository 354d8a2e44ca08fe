// The rows' results over one range of keys, for the combine kernel: first (row_max, sum, weighted, 0), then o undivided.
@group(0) @binding(11) var<storage, read_write> partials: array<vec4<f32>>; // [batch, q_heads, q_len, splits, 1 + v_dim / 4]

fn write_rows(split: u32, first: u32) {
    for (var r = 0u; r < 4u; r++) {
        if (first + r < params.q_len) {
            let index = ((batch * params.q_heads + head) * params.q_len + first + r) * params.splits + split;
            let base = index * (1u + V_CHUNKS);
            partials[base] = vec4(row_max[r], sum[r], weighted[r], 0.0);
            for (var c = 0u; c < V_CHUNKS; c++) {
                let o4 = o_block[c];
                partials[base + 1u + c] = vec4(o4[0][r], o4[1][r], o4[2][r], o4[3][r]);
            }
        }
    }
}
