// The rows' results, divided and gated, written from the one range of keys there is.
fn write_rows(split: u32, first: u32) {
    let divisor = row_divisor(visible, sum);
    let base = params.o_start + batch * params.o_batch + head * params.o_head;
    for (var b = 0u; b < V_BLOCK; b++) { // unroll if UNROLL
        let o4 = o_block[b];
        let rows = transpose(mat4x4(o4[0] / divisor, o4[1] / divisor, o4[2] / divisor, o4[3] / divisor));
        for (var r = 0u; r < 4u; r++) {
            if (b >= v_own && first + r < end_row) {
                // 0 where no key is visible, whatever the gate holds.
                let gated = rows[r] * gate(batch, head, first + r, v_first + b);
                store_o(base + (first + r) * params.o_row, v_first + b, select(vec4(0.0), gated, visible[r] > 0.0));
            }
        }
    }
}
