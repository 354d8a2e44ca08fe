// The outputs of a softmax, from the statistics of the row.
var<private> found: Row;

fn start_row(own: Statistics) {
    found = row_of(own);
    if (is_own && lane == 0u && split == 0u) {
        store_lse(bitcast<u32>(select(found.largest + found.log_sum, minus_infinity(), found.is_empty)));
        store_entropy(found.entropy);
    }
}

fn write() {
    for (var i = 0u; i < QUADS; i++) { // unroll
        write_quad(quads[i]);
    }
}

fn write_quad(quad: Quad) {
    let inside = quad.columns < vec4(params.columns);
    if (!is_own || !inside.x) {
        return;
    }
    let below = scores(quad) - found.largest;
    let weights = weights_of(below);
    if (LOG) {
        store_p(quad.columns, select(vec4(minus_infinity()), logs_of(below, weights) - found.log_sum, quad.seen), inside);
    } else {
        store_p(quad.columns, select(vec4(0.0), weights * found.inverse, quad.seen), inside);
    }
}

fn finish_row(index: u32) {
}
