// The queries of matrix_tile.wgsl, in matrices that a subgroup keeps for the whole walk. They come through the tile of weights,
// KEYS dims at a time.
const HELD: bool = true;
const HEAD_PANELS: u32 = (HEAD_MATRICES + KEY_MATRICES - 1u) / KEY_MATRICES;

var<private> q_held: array<array<Left, HEAD_MATRICES>, ROW_MATRICES>;

fn bring_queries(q_base: u32) {
    for (var panel = 0u; panel < HEAD_PANELS; panel++) { // unroll
        for (var i = 0u; i < OWN_CHUNKS; i++) { // unroll
            put_four(i, query_halves(q_base, panel * KEYS / 4u + x * OWN_CHUNKS + i));
        }
        workgroupBarrier();
        for (var d = 0u; d < HEAD_MATRICES; d++) { // unroll
            if (d / KEY_MATRICES == panel) {
                for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
                    q_held[m][d] = load_weights(m, d % KEY_MATRICES);
                }
            }
        }
        workgroupBarrier();
    }
}

// Matrix m down and d across of the subgroup's queries.
fn query_matrix(m: u32, d: u32) -> Left {
    return q_held[m][d];
}
