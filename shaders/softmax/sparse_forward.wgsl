// What sparse.wgsl sums over p and writes in forward.
var<private> inverse: f32; // 1 / the sum of w

fn sums_of(quad: Quad) -> Sums {
    let d = below(quad);
    let y = exponent / high * d;
    let weights = select(vec4(0.0), powers(y).weight, quad.seen);
    var weighted = 0.0;
    if (ENTROPY) {
        weighted = total(weights * log_power(y));
    }
    let ones = select(vec4(0.0), vec4(1.0), weights > vec4(0.0));
    return Sums(vec4(total(weights), weighted, total(weights * d), total(ones)), vec4(0.0));
}

// An f32 counts to 2^24, which no split is wider than: over splits, the count passes in two halves of 12 bits.
fn settled(sums: Sums) -> Sums {
    let count = u32(sums.a.w);
    return Sums(sums.a, vec4(f32(count & 0xfffu), f32(count >> 12u), 0.0, 0.0));
}

fn start_row(sums: Sums) {
    let is_usable = !is_empty && !is_broken;
    let weight = select(1.0, sums.a.x, is_usable);
    inverse = select(1.0 / weight, not_a_number(), is_broken);
    if (!is_own || lane > 0u || split > 0u) {
        return;
    }
    let log_weight = log(weight);
    let nats = log_weight - sums.a.y * inverse;
    store_entropy(select(nats - min(nats, 0.0), 0.0, is_empty)); // NaN stays, which max might drop
    store_support(select(0u, u32(sums.b.x) + (u32(sums.b.y) << 12u), is_usable));

    // The loss, of which a large number that all scores have in common is no part: (1 - T) / e + e <p, d>, by alpha, less d of the label.
    let label = find_label();
    let u = -exponent * log_weight;
    let part = log_weight * (1.0 + u * second_of_exp(vec4(u)).x) + exponent * sums.a.z * inverse;
    let own = part / (1.0 + exponent) - abs(scale) * (turned(vec4(label.x)).x - largest);
    store_loss(label, own - min(own, 0.0), is_broken && !is_empty);
}

fn write_quad(quad: Quad) {
    let inside = quad.columns < vec4(params.columns);
    if (!is_own || !inside.x) {
        return;
    }
    let weights = powers(exponent / high * below(quad)).weight;
    store_p(quad.columns, select(vec4(0.0), weights * inverse, quad.seen), inside);
}

fn finish_row() {
}
