// The rows' factors of backward_matrices.wgsl, in matrices that a subgroup keeps for the whole walk. They come through the tile of weights,
// KEYS dims at a time.
const HELD: bool = true;

var<private> first_held: array<array<Left, FIRST_MATRICES>, ROW_MATRICES>;
var<private> second_held: array<array<Left, SECOND_MATRICES>, ROW_MATRICES>;

fn bring_rows() {
    for (var panel = 0u; panel < (FIRST_MATRICES + KEY_MATRICES - 1u) / KEY_MATRICES; panel++) { // unroll
        put_panel(false, panel);
        for (var d = 0u; d < FIRST_MATRICES; d++) { // unroll
            if (d / KEY_MATRICES == panel) {
                for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
                    first_held[m][d] = load_weights(0u, m, d % KEY_MATRICES);
                }
            }
        }
    }
    if (DP) {
        for (var panel = 0u; panel < (SECOND_MATRICES + KEY_MATRICES - 1u) / KEY_MATRICES; panel++) { // unroll
            put_panel(true, panel);
            for (var d = 0u; d < SECOND_MATRICES; d++) { // unroll
                if (d / KEY_MATRICES == panel) {
                    for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
                        second_held[m][d] = load_weights(0u, m, d % KEY_MATRICES);
                    }
                }
            }
        }
    }
}

fn put_panel(second: bool, panel: u32) {
    workgroupBarrier();
    for (var i = 0u; i < OWN_CHUNKS; i++) { // unroll
        put_four(0u, i, row_halves(second, panel * KEYS / 4u + x * OWN_CHUNKS + i));
    }
    workgroupBarrier();
}

// Matrix m down and d across of the subgroup's factors.
fn first_rows(m: u32, d: u32) -> Left {
    return first_held[m][d];
}

fn second_rows(m: u32, d: u32) -> Left {
    return second_held[m][d];
}
