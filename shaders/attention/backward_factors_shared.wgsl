// The rows' factors of backward_matrices.wgsl in workgroup memory, where matrices of them would fill the registers.
// Workgroup memory: 2 * ROWS * (FIRST_STRIDE + SECOND_STRIDE) bytes.
const HELD: bool = false;

var<workgroup> first_tile: array<array<array<array<f16, 8>, FIRST_STRIDE / 8u>, OWN_ROWS>, SUBGROUPS>; // [subgroup, row, dim]
var<workgroup> second_tile: array<array<array<array<f16, 8>, SECOND_STRIDE / 8u>, OWN_ROWS>, SUBGROUPS>;

// To be seen behind the barriers of the first step.
fn bring_rows() {
    for (var eight = x; eight < FIRST_EIGHTS; eight += WIDTH) {
        for (var h = 0u; h < 2u; h++) { // unroll
            let four = row_halves(false, 2u * eight + h);
            for (var d = 0u; d < 4u; d++) { // unroll
                first_tile[own][row][eight][4u * h + d] = four[d];
            }
        }
    }
    if (DP) {
        for (var eight = x; eight < SECOND_EIGHTS; eight += WIDTH) {
            for (var h = 0u; h < 2u; h++) { // unroll
                let four = row_halves(true, 2u * eight + h);
                for (var d = 0u; d < 4u; d++) { // unroll
                    second_tile[own][row][eight][4u * h + d] = four[d];
                }
            }
        }
    }
}

// Matrix m down and d across of the subgroup's factors.
fn first_rows(m: u32, d: u32) -> Left {
    return coopLoadT<Left>(&first_tile[own][m * SIZE][d * SIZE / 8u][0], FIRST_STRIDE);
}

fn second_rows(m: u32, d: u32) -> Left {
    return coopLoadT<Left>(&second_tile[own][m * SIZE][d * SIZE / 8u][0], SECOND_STRIDE);
}
