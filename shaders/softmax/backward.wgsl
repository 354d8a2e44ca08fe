// The gradients of a softmax, from the statistics of the row: with t = log p, and times the derivative of a weight's logarithm, which is
// 1 unless TAYLOR, ds = p * (dp - sum(p * dp) + dlse - dentropy * (t + entropy)), or, where LOG, dp - p * (sum(dp) - dlse + dentropy * (t + entropy)).
// The sum of ds over the row is dlse, unless TAYLOR. So dscale, the sum of ds * x, is that of ds * (x - center) plus dlse * center: without what
// all x of the row have in level, few digits are lost.
var<private> found: Row;
var<private> shift: f32; // dlse less the sum of what comes in
var<private> dentropy_own: f32;
var<private> center: f32;
var<private> slope: f32; // dscale

fn start_row(own: Statistics) {
    found = row_of(own);
    let dlse_own = dlse_of();
    shift = dlse_own - own.incoming * select(found.inverse, 1.0, LOG);
    dentropy_own = dentropy_of();
    center = 0.0;
    if (!TAYLOR && abs(scale) > 1.0e-30 && !found.is_empty) {
        center = found.largest / scale;
    }
    slope = select(0.0, dlse_own * center, lane == 0u && split == 0u);
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
    let p = weights * found.inverse;
    var level = vec4(shift);
    if (ENTROPY) {
        level -= dentropy_own * (logs_of(below, weights) - found.log_sum + found.entropy);
    }
    var ds = p * (quad.dp + level);
    if (LOG) {
        ds = quad.dp + p * level;
    }
    ds = select(vec4(0.0), growth_of(below, weights) * ds, quad.seen);
    store_dx(quad.columns, scale * ds, inside);
    slope += total(ds * (quad.x - center));
}

fn finish_row(index: u32) {
    store_slope(index);
}
