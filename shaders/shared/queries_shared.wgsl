// The queries of matrix_tile.wgsl in workgroup memory, where matrices of them would fill the registers.
// Workgroup memory: 2 * ROWS * K_STRIDE bytes.
const HELD: bool = false;

var<workgroup> q_tile: array<array<array<array<f16, 8>, K_STRIDE / 8u>, OWN_ROWS>, SUBGROUPS>; // [subgroup, row, dim]

fn bring_queries(q_base: u32) {
    for (var eight = x; eight < Q_EIGHTS; eight += WIDTH) {
        for (var h = 0u; h < 2u; h++) { // unroll
            let four = query_halves(q_base, 2u * eight + h);
            for (var d = 0u; d < 4u; d++) { // unroll
                q_tile[own][row][eight][4u * h + d] = four[d];
            }
        }
    }
    workgroupBarrier();
}

// Matrix m down and d across of the subgroup's queries.
fn query_matrix(m: u32, d: u32) -> Left {
    return coopLoadT<Left>(&q_tile[own][m * SIZE][d * SIZE / 8u][0], K_STRIDE);
}
