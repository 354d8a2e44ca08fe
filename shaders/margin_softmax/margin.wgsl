// What a margin makes of the target's cosine, without an angle: cos(nθ) and sin(nθ) are polynomials of cos θ by Chebyshev's
// recurrence, and sin θ is a root.
const MONOTONE: u32 = 1u;
const EASY: u32 = 2u;
const PIECEWISE: u32 = 3u;
const LEAST: u32 = 4u;
const METRIC: u32 = 5u;

const EDGE: f32 = 1e-6; // what 1 - c² and 1 - c count as at least, where a derivative has no bound

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

// The target's logit over the scale, and its derivative.
fn with_margin(c: f32, turn: Turn) -> vec2<f32> {
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
    let straight = f32(TIMES) * sines; // the derivative of cos(nθ)
    if (FORM == METRIC) {
        return without_margin(c) - vec2(turn.off, 0.0);
    }
    if (FORM == LEAST) {
        return select(vec2(c, 1.0), vec2(cosine, straight), cosine < c);
    }
    if (FORM == PIECEWISE) {
        // In which of TIMES equal parts of [0, π] the angle is: their ends are cosines.
        let past = f32(c < params.end_1) + f32(c < params.end_2) + f32(c < params.end_3);
        let sign = select(1.0, -1.0, past == 1.0 || past == 3.0);
        return sign * vec2(cosine, straight) - vec2(2.0 * past, 0.0);
    }
    if (FORM == MONOTONE && c <= -turn.cosine) {
        return vec2(c - turn.fall, 1.0);
    }
    if (FORM == EASY && c <= 0.0) {
        return vec2(c, 1.0);
    }
    let square = (1.0 - c) * (1.0 + c);
    let root = select(inverseSqrt(max(square, EDGE)), 0.0, square < -EDGE);
    let slope = straight * turn.cosine + f32(TIMES) * cosine * root * turn.sine;
    return vec2(cosine * turn.cosine - sqrt(max(square, 0.0)) * sines * turn.sine - turn.off, slope);
}

// Another class's.
fn without_margin(c: f32) -> vec2<f32> {
    if (FORM == METRIC) {
        let below = 1.0 - c;
        return vec2(-sqrt(max(below, 0.0)), select(0.5 * inverseSqrt(max(below, EDGE)), 0.0, below < -EDGE));
    }
    return vec2(c, 1.0);
}
