// What a margin makes of the target's cosine, without an angle: cos(nθ) and sin(nθ) are polynomials of cos θ by Chebyshev's
// recurrence, and sin θ is a root.
const MONOTONE: u32 = 1u;
const EASY: u32 = 2u;
const PIECEWISE: u32 = 3u;
const LEAST: u32 = 4u;
const METRIC: u32 = 5u;

// The numbers of a margin.
struct Turn {
    off: f32, // taken off the cosine
    cosine: f32, // of the angle
    sine: f32,
    fall: f32, // the angle times its sine
}

// The margin of a row: the call's, or the row's own.
fn turn_of(margin: f32) -> Turn {
    if (!GIVEN) {
        return Turn(params.off, params.cosine, params.sine, params.fall);
    }
    if (!ANGLE) {
        return Turn(margin, 1.0, 0.0, 0.0);
    }
    // By Taylor's series around π/2, which is no f32: WGSL's own sine may be off by 2⁻¹¹.
    let x = (1.5707964 - margin) - 4.371139e-8;
    let s = x * x;
    let cosine = x * (1.0 + s * (-1.0 / 6.0 + s * (1.0 / 120.0 + s * (-1.0 / 5040.0 + s * (1.0 / 362880.0 - s / 39916800.0)))));
    let sine = 1.0 + s * (-0.5 + s * (1.0 / 24.0 + s * (-1.0 / 720.0 + s * (1.0 / 40320.0 + s * (-1.0 / 3628800.0 + s / 479001600.0)))));
    return Turn(0.0, cosine, sine, margin * sine);
}

// The target's logit over the scale.
fn with_margin(c: f32, turn: Turn) -> f32 {
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
        return -sqrt(max(1.0 - c, 0.0)) - turn.off;
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
    if (FORM == MONOTONE && c <= -turn.cosine) {
        return c - turn.fall;
    }
    if (FORM == EASY && c <= 0.0) {
        return c;
    }
    return cosine * turn.cosine - sqrt(max((1.0 - c) * (1.0 + c), 0.0)) * sines * turn.sine - turn.off;
}
