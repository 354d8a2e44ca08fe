// q, times its scale, in registers: an invocation's chunks of every row.
var<private> own_q: array<array<vec4<f32>, HEAD_COLUMNS>, ROWS>;

fn take_queries() {
    for (var quad = 0u; quad < QUADS; quad++) { // unroll
        let rows = rows_of(tile, tile.first + 4u * quad);
        let at = q_base(rows);
        let scales = row_scales(rows);
        for (var i = 0u; i < OF_QUAD; i++) { // unroll
            for (var c = 0u; c < HEAD_COLUMNS; c++) { // unroll
                own_q[4u * quad + i][c] = scaled_query(at[i], scales[i], c);
            }
        }
    }
}

fn query(r: u32, c: u32) -> vec4<f32> {
    return own_q[r][c];
}
