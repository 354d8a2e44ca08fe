// The gradients of a softmax, from the statistics of the row. With t = log p,
//     ds = p * (dp - sum(p * dp) + dlse - dentropy * (t + entropy))
// or, where LOG, dp - p * (sum(dp) - dlse + dentropy * (t + entropy)); where TAYLOR, times the derivative of a weight's logarithm.
// A softmax's ds add up to dlse: dscale, which is sum(ds * x), is sum(ds * (x - center)) + dlse * center, and what all x of the row
// have in common costs no digits. That of the loss of a label, lse - s, joins dlse, and is subtracted there.
var<private> found: Row;
var<private> shift: f32; // dlse less the sum of what comes in
var<private> dentropy_own: f32;
var<private> dloss_own: f32;
var<private> label_own: u32;
var<private> center: f32;
var<private> slope: f32; // dscale

fn start_row(own: Statistics) {
    found = row_of(own);
    dloss_own = dloss_of();
    label_own = label_of();
    let dlse_own = dlse_of() + dloss_own;
    shift = dlse_own - own.incoming * select(found.inverse, 1.0, LOG);
    dentropy_own = dentropy_of();
    center = 0.0;
    if (!TAYLOR && abs(scale) > 1.0e-30 && !found.is_empty) {
        center = found.largest / scale;
    }
    slope = 0.0;
    if (lane == 0u && split == 0u && !found.is_empty) {
        let is_own_of_row = label_own != 0xffffffffu && find_label().is_seen;
        slope = (dlse_own - select(0.0, dloss_own, is_own_of_row)) * center;
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
    let p = weights * found.inverse;
    var level = vec4(shift);
    if (ENTROPY) {
        // Where p is 0, its logarithm may be any, but not so large that a product overflows.
        let logs = max(logs_of(below, weights) - found.log_sum, vec4(-200.0));
        level -= dentropy_own * (logs + found.entropy);
    }
    var ds = p * (quad.dp + level);
    if (LOG) {
        ds = quad.dp + p * level;
    }
    ds = growth_of(below, weights) * ds - select(vec4(0.0), vec4(dloss_own), quad.columns == vec4(label_own));
    ds = select(vec4(0.0), ds, quad.seen);
    store_dx(quad.columns, select(vec4(0.0), scale * ds, quad.seen), inside);
    slope += total(ds * (quad.x - center));
}

fn finish_row() {
    store_slope();
}
