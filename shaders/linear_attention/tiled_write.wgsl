// The results of a tile: rows of o. What the invocations along WIDTH have summed each for itself is added up.
fn write_rows(batch: u32, head: u32, end_row: u32) {
    let base = params.o_start + batch * params.o_batch + head * params.o_head;
    sum = sum_along_width(sum);
    for (var g = 0u; g < GROUPS; g++) { // unroll
        let rows = rows_of(g);
        for (var r = 0u; r < 4u; r++) { // unroll
            for (var c = 0u; c < COLUMNS; c++) { // unroll
                let chunk = chunk_of(x + c * WIDTH);
                if (rows[r] < end_row && x + c * WIDTH < V_CHUNKS && chunk < O_CHUNKS) {
                    store_o(base + rows[r] * params.o_row, chunk, finish(o_tile[4u * g + r][c], g, r));
                }
            }
        }
    }
}
