// The rows' results, written from the one range of keys there is.
fn write_rows(split: u32, first: u32) {
    // A row that sees no key has sum 0 and an o_block of zeros: it is divided by 1.
    let divisor = select(sum, vec4(1.0), sum == vec4(0.0));
    let base = params.o_start + batch * params.o_batch + head * params.o_head;
    for (var c = 0u; c < V_CHUNKS; c++) {
        let o4 = o_block[c];
        let rows = transpose(mat4x4(o4[0] / divisor, o4[1] / divisor, o4[2] / divisor, o4[3] / divisor));
        for (var r = 0u; r < 4u; r++) {
            if (first + r < params.q_len) {
                store_o(base + (first + r) * params.o_row, c, rows[r]);
            }
        }
    }
    for (var r = 0u; r < 4u; r++) {
        if (first + r < params.q_len) {
            store_statistics(batch, head, first + r, row_max[r], sum[r], weighted[r]);
        }
    }
}
