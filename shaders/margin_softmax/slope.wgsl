// The derivatives of logits over the scale by their cosines; those without a bound are held where 1 - c² and 1 - c are EDGE.
const EDGE: f32 = 1e-6;

// Of the target's logit, see with_margin.
fn target_slope(c: f32, turn: Turn) -> f32 {
    var cosine = c;
    var cosine_before = 1.0;
    var sines = 1.0; // sin(nθ) / sin θ
    var sines_before = 0.0;
    for (var i = 1u; i < TIMES; i++) { // unroll
        let next = 2.0 * c * cosine - cosine_before;
        cosine_before = cosine;
        cosine = next;
        let next_sines = 2.0 * c * sines - sines_before;
        sines_before = sines;
        sines = next_sines;
    }
    let straight = f32(TIMES) * sines; // of cos(nθ)
    if (FORM == METRIC) {
        return other_slope(c);
    }
    if (FORM == LEAST) {
        return select(1.0, straight, cosine < c);
    }
    if (FORM == PIECEWISE) {
        let ends = vec3(params.end_1, params.end_2, params.end_3);
        let past = dot(select(vec3(0.0), vec3(1.0), vec3(c) < ends), vec3(1.0));
        return select(straight, -straight, past == 1.0 || past == 3.0);
    }
    if ((FORM == MONOTONE && c <= -turn.cosine) || (FORM == EASY && c <= 0.0)) {
        return 1.0;
    }
    let square = (1.0 - c) * (1.0 + c);
    let root = select(inverseSqrt(max(square, EDGE)), 0.0, square < -EDGE);
    return straight * turn.cosine + f32(TIMES) * cosine * root * turn.sine;
}

// Another class's logit over the scale, and its derivative.
fn other_logit(c: f32) -> f32 {
    if (FORM == METRIC) {
        return -sqrt(max(1.0 - c, 0.0));
    }
    return c;
}

fn other_slope(c: f32) -> f32 {
    if (FORM == METRIC) {
        return select(0.5 * inverseSqrt(max(1.0 - c, EDGE)), 0.0, 1.0 - c < -EDGE);
    }
    return 1.0;
}
