// The rows' results, written from the one range of keys there is.
fn o_base(i: u32) -> u32 {
    return params.o_start + batch * params.o_batch + head * params.o_head + i * params.o_row;
}

fn get_o(split: u32, i: u32, c: u32) -> vec4<f32> {
    return load_o(o_base(i), c);
}

fn put_o(split: u32, i: u32, c: u32, value: vec4<f32>) {
    store_o(o_base(i), c, value);
}

fn write_rows(split: u32) {
    // A row that sees no key has sum 0 and only zeros in o: it is divided by 1.
    let divisor = select(sum, vec4(1.0), sum == vec4(0.0));
    for (var c = 0u; c < V_CHUNKS; c++) { // unroll if UNROLL
        let o4 = o_chunk(c);
        if (first < params.q_len) { put_o(split, first, c, o4[0] / divisor.x); }
        if (first + 1u < params.q_len) { put_o(split, first + 1u, c, o4[1] / divisor.y); }
        if (first + 2u < params.q_len) { put_o(split, first + 2u, c, o4[2] / divisor.z); }
        if (first + 3u < params.q_len) { put_o(split, first + 3u, c, o4[3] / divisor.w); }
    }
    for (var r = 0u; r < 4u && first + r < params.q_len; r++) {
        store_statistics(batch, head, first + r, row_max[r], sum[r], weighted[r]);
    }
}
