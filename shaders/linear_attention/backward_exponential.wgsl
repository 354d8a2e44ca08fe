// Gradients of exponents: `beside` holds those of the rows, v those of what they see, and a pair's terms are exp(beside + v). None
// that a row sees is above 1, and others count for nothing.
var<private> own_tile: Sums; // as o_tile has its chunks

fn take_own(last_row: u32) {
    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var r = 0u; r < 4u; r++) { // unroll
            let base = beside_at + min(rows_of(g)[r], last_row) * params.beside_row;
            for (var c = 0u; c < COLUMNS; c++) { // unroll
                own_tile[4u * g + r][c] = load_beside(base, min(chunk_of(x + c * WIDTH), O_CHUNKS - 1u));
            }
        }
    }
}

// Terms with a state that is relative to its maxima, of a row of the tile.
fn state_factor(r: u32, c: u32, z: vec4<f32>, maximum: vec4<f32>) -> vec4<f32> {
    return exp(min(own_tile[r][c] + maximum, vec4(0.0)));
}

fn through_map(gradient: vec4<f32>, row: u32, chunk: u32) -> vec4<f32> {
    return gradient;
}
