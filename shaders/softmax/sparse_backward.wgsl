// What sparse.wgsl sums over p and writes in backward. With s = p^(2 - alpha) and the gradient g of p, through which the entropy's flows,
//     ds = s * (g - sum(s * g) / sum(s)) + dloss * (p - y)
// and with l = log p, H = -sum(p * l), r = (p^-e - 1 + e * l) / e^2 and Q = sum(p * r), where nothing is lost as e gets small,
//     dalpha = (Q * sum(g * p * (1 - e * l)) - (1 + e * H) * sum(g * p * r)) / sum(s)
//         - dloss / alpha * sum(p^alpha * (r + (p^-e - 1) / (e * alpha)))
var<private> dentropy_own: f32;
var<private> dloss_own: f32;
var<private> label_own: u32;
var<private> inverse: f32; // 1 / the sum of w
var<private> unit: f32; // s where w^(1 - e) is 1
var<private> mean: f32; // of g, by s
var<private> center: f32; // as ds adds up to 0, what all x have in common costs dscale no digits
var<private> slope: f32; // dscale

// The gradient of p: where p is 0, it has no part.
fn gradients(quad: Quad, y: vec4<f32>, weights: vec4<f32>) -> vec4<f32> {
    if (ENTROPY) {
        return quad.dp - select(vec4(0.0), dentropy_of() * log_power(y), weights > vec4(0.0));
    }
    return quad.dp;
}

fn sums_of(quad: Quad) -> Sums {
    let y = exponent / high * below(quad);
    let own = powers(y);
    let weights = select(vec4(0.0), own.weight, quad.seen);
    let slopes = select(vec4(0.0), own.slope, quad.seen);
    let g = gradients(quad, y, weights);
    var sums = Sums(vec4(total(weights), total(slopes), total(slopes * g), 0.0), vec4(0.0));
    if (DALPHA) {
        let alpha = 1.0 + exponent;
        let l = log_power(y) - log_sum;
        let u = -exponent * l;
        let second = second_of_exp(u);
        let r = l * l * second;
        let of_loss = exp(-u) * (r - l * (1.0 + u * second) / alpha);
        sums.a.w = total(weights * of_loss);
        sums.b = vec4(total(weights * l), total(weights * r), total(weights * g * (1.0 + u)), total(weights * g * r));
    }
    return sums;
}

fn settled(sums: Sums) -> Sums {
    return sums;
}

fn start_row(sums: Sums) {
    let is_usable = !is_empty && !is_broken;
    let weight = select(1.0, sums.a.x, is_usable);
    let slopes = select(1.0, sums.a.y, is_usable);
    inverse = select(1.0 / weight, not_a_number(), is_broken);
    unit = inverse / high;
    mean = sums.a.z / slopes;
    dloss_own = dloss_of();
    label_own = label_of();
    center = select(largest, -largest, scale < 0.0);
    slope = 0.0;
    if (lane == 0u && split == 0u && !is_empty && label_own != 0xffffffffu) {
        slope = select(dloss_own * center, 0.0, find_label().is_seen);
    }
    if (DALPHA && is_own && lane == 0u && split == 0u) {
        let all = sums.b * inverse;
        let of_p = all.y * all.z - (1.0 - exponent * all.x) * all.w;
        let own = of_p / (slopes * unit) - dloss_own * sums.a.w * inverse / (1.0 + exponent);
        store_alpha_slope(select(own, 0.0, is_empty));
    }
}

fn write_quad(quad: Quad) {
    let inside = quad.columns < vec4(params.columns);
    if (!is_own || !inside.x) {
        return;
    }
    let y = exponent / high * below(quad);
    let own = powers(y);
    let g = gradients(quad, y, own.weight);
    let of_loss = own.weight * inverse - select(vec4(0.0), vec4(1.0), quad.columns == vec4(label_own));
    let ds = select(vec4(0.0), own.slope * unit * (g - mean) + dloss_own * of_loss, quad.seen);
    store_dx(quad.columns, select(vec4(0.0), scale * ds, quad.seen), inside);
    slope += total(ds * (quad.x - center));
}

fn finish_row() {
    store_slope();
}
