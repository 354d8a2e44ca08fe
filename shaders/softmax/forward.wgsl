// The outputs of a softmax, from the statistics of the row.
var<private> found: Row;

fn start_row(own: Statistics) {
    found = row_of(own);
    if (is_own && lane == 0u && split == 0u) {
        store_lse(bitcast<u32>(select(found.largest + found.log_sum, minus_infinity(), found.is_empty)));
        store_entropy(found.entropy);
        // Of all weights, log(1 + others / own), which keeps its digits where the loss is small.
        let label = find_label();
        let below = max(scale * label.x, LOWEST) - found.largest;
        let odds = own.incoming / max(exp(below), 0x1p-126);
        let loss = select(found.log_sum - below, log_of_one_plus(odds), odds < 0.5);
        store_loss(label, loss, found.is_broken);
    }
}

// For numbers from 0 to 1/2, by the series of the inverse hyperbolic tangent.
fn log_of_one_plus(x: f32) -> f32 {
    let q = x / (2.0 + x);
    let r = q * q;
    return 2.0 * q * (1.0 + r * (1.0 / 3.0 + r * (1.0 / 5.0 + r * (1.0 / 7.0 + r * (1.0 / 9.0 + r / 11.0)))));
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

fn finish_row() {
}
