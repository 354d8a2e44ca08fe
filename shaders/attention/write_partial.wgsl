// The rows' results over one range of keys, for the combine kernel: first (row_max, sum, weighted, 0), then o undivided.
@group(0) @binding(11) var<storage, read_write> partials: array<vec4<f32>>; // [batch, q_heads, q_len, splits, 1 + v_dim / 4]

fn partial_base(split: u32, i: u32) -> u32 {
    let index = ((batch * params.q_heads + head) * params.q_len + i) * params.splits + split;
    return index * (1u + V_CHUNKS);
}

fn get_o(split: u32, i: u32, c: u32) -> vec4<f32> {
    return partials[partial_base(split, i) + 1u + c];
}

fn put_o(split: u32, i: u32, c: u32, value: vec4<f32>) {
    partials[partial_base(split, i) + 1u + c] = value;
}

fn write_rows(split: u32) {
    for (var c = 0u; c < V_CHUNKS; c++) { // unroll if UNROLL
        let o4 = o_chunk(c);
        if (first < params.q_len) { put_o(split, first, c, o4[0]); }
        if (first + 1u < params.q_len) { put_o(split, first + 1u, c, o4[1]); }
        if (first + 2u < params.q_len) { put_o(split, first + 2u, c, o4[2]); }
        if (first + 3u < params.q_len) { put_o(split, first + 3u, c, o4[3]); }
    }
    for (var r = 0u; r < 4u && first + r < params.q_len; r++) {
        partials[partial_base(split, first + r)] = vec4(row_max[r], sum[r], weighted[r], 0.0);
    }
}
