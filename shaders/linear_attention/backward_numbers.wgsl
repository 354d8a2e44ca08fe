// The results of a tile: what the backward pass needs of each row, beside its q and do.
@group(0) @binding(12) var<storage, read_write> numbers: array<vec4<f32>>; // [q_heads, rows of the round]: unit, 1 / w, -do.o, unit

// What the invocations along WIDTH have summed each for itself is added up.
fn write_rows(batch: u32, head: u32, end_row: u32) {
    let base = params.o_start + batch * params.o_batch + head * params.o_head;
    let at = params.numbers_start + batch * params.numbers_batch + head * params.numbers_head;
    sum = sum_along_width(sum);
    var product: PerRow; // w do.o, of this invocation's dims
    for (var g = 0u; g < GROUPS; g++) { // unroll
        let rows = min(rows_of(g), vec4(end_row - 1u));
        for (var r = 0u; r < 4u; r++) { // unroll
            for (var c = 0u; c < COLUMNS; c++) { // unroll
                let chunk = x + c * WIDTH;
                if (NORMALIZED && chunk < V_CHUNKS) {
                    let own = load_beside(base + rows[r] * params.o_row, chunk);
                    product[g][r] += dot(own, o_tile[4u * g + r][c]);
                }
            }
        }
    }
    product = sum_along_width(product);
    for (var g = 0u; g < GROUPS; g++) { // unroll
        let rows = rows_of(g);
        for (var r = 0u; r < 4u; r++) { // unroll
            if (x == 0u && rows[r] < end_row) {
                let unit = numbers[at + rows[r]];
                let own = finish(vec4(1.0, product[g][r], 0.0, 0.0), at + rows[r], g, r);
                numbers[at + rows[r]] = vec4(unit.x, own.x, -own.y, unit.w);
            }
        }
    }
}
