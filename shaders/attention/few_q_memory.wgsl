// q, times its scale, in workgroup memory, where each group reads it in every step: registers are for o. A group brings every
// HEIGHT-th row.
var<workgroup> all_q: array<array<array<vec4<f32>, WIDTH>, HEAD_COLUMNS>, ROWS>;

fn take_queries() {
    for (var r = y; r < ROWS; r += HEIGHT) {
        let rows = rows_of(tile, tile.first + r);
        let at = q_base(rows).x;
        let scale = row_scales(rows).x;
        for (var c = 0u; c < HEAD_COLUMNS; c++) { // unroll
            all_q[r][c][x] = scaled_query(at, scale, c);
        }
    }
    workgroupBarrier();
}

fn query(r: u32, c: u32) -> vec4<f32> {
    return all_q[r][c][x];
}
