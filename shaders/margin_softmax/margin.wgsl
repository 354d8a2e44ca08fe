// What a margin makes of the target's cosine, without an angle: cos(nθ) and sin(nθ) are polynomials of cos θ by Chebyshev's
// recurrence, and sin θ is a root.

// The target's logit over the scale.
fn with_margin(c: f32) -> f32 {
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
    if (FORM == METRIC) {
        return -sqrt(max(1.0 - c, 0.0)) - params.off;
    }
    if (FORM == LEAST) {
        return min(cosine, c);
    }
    if (FORM == PIECEWISE) {
        // In which of TIMES equal parts of [0, π] the angle is: their ends are cosines.
        let ends = vec3(params.end_1, params.end_2, params.end_3);
        let past = dot(select(vec3(0.0), vec3(1.0), vec3(c) < ends), vec3(1.0));
        return select(cosine, -cosine, past == 1.0 || past == 3.0) - 2.0 * past;
    }
    if (FORM == MONOTONE && c <= -params.cosine) {
        return c - params.fall;
    }
    if (FORM == EASY && c <= 0.0) {
        return c;
    }
    return cosine * params.cosine - sqrt(max((1.0 - c) * (1.0 + c), 0.0)) * sines * params.sine - params.off;
}
