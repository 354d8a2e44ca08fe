// Sparsemax and entmax of rows, or their gradients. With d = s - largest, T = 1 at one column alone and e = alpha - 1,
//     w = [1 + e d / T]+^(1/e);   p = w / sum(w);   T = sum(w)^(-e),   so that p = [T + e d]+^(1/e)
//
// Lanes, fours and KEPT are those of walk.wgsl. A row that is not kept is read 8 times: for its largest score (LARGEST); ROUNDS times
// for the sums of w and of w^(1 - e) at four T at once (ROUND), which close a bracket on T from the side of a tangent and that of a
// chord, as T * sum(w)^e is convex in T; for the sums over p (SUMS); and for what is written (WRITE). Where a row is split, each is a
// dispatch, and every workgroup of the next combines the partials. Workgroup memory: 16 * WORKGROUP bytes. Features: none.
// Source: Peters, Niculae and Martins, "Sparse Sequence-to-Sequence Models", 2019; a bracket without a sort as in Goncalves, Treviso and
// Martins, "AdaSplash: Adaptive Sparse Flash Attention", 2025, section 3.1.
const WORKGROUP: u32 = 256u;
const LANES: u32 = 256u; // a power of two
const QUADS: u32 = 4u;
const KEPT: bool = false;
const LARGEST: bool = true;
const ROUND: bool = true;
const SUMS: bool = true;
const WRITE: bool = true;
const COUNT: bool = false; // whether the scale takes the number of columns that the mask leaves
const POWER: u32 = 0u; // 1/e where it is 1 or 2
const ENTROPY: bool = false; // whether anything takes the entropy
const DALPHA: bool = false; // whether anything takes the gradient of alpha
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const ROUNDS: u32 = 5u; // of which the brackets of tests need 4 to 5 down to a few ulp
const LEAST: f32 = -0x1.fffffep+127; // no float is below the lowest
const WHOLE: bool = LARGEST && ROUND && SUMS && WRITE;

// Two fours of sums over columns.
struct Sums {
    a: vec4<f32>,
    b: vec4<f32>,
}

const NO_SUMS: Sums = Sums(vec4(0.0), vec4(0.0));

var<private> exponent: f32; // e
var<private> largest: f32; // of x, or of -x where the scale is below 0
var<private> is_empty: bool; // no column is seen
var<private> is_broken: bool; // a score or alpha is no number to compute with
var<private> low: f32; // T is from low to high
var<private> high: f32;
var<private> log_sum: f32; // of w at high, as far as the rounds know it

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    if (workgroup >= params.end_workgroup) {
        return;
    }
    place(workgroup, local);
    if (KEPT) {
        load(0u, true);
    }

    // The largest score.
    if (LARGEST) {
        find_scale();
        exponent = alpha_of() - 1.0;
        let most = most_over_lanes(most_of_columns());
        if (!WHOLE) {
            store_partial(Sums(most, vec4(0.0)));
            return;
        }
        open(most);
    } else {
        load_row();
    }

    // The bracket on T.
    if (ROUND && WHOLE) {
        for (var round = 0u; round < ROUNDS; round++) {
            narrow(over_lanes(candidate_sums()));
        }
    } else if (ROUND) {
        if (params.round == 0u) {
            open(most_of_splits());
        } else {
            narrow(sums_of_splits());
        }
        store_partial(over_lanes(candidate_sums()));
        return;
    }

    // The sums over p, and what follows.
    var sums = NO_SUMS;
    if (SUMS && WHOLE) {
        sums = over_lanes(sums_of_columns());
    } else if (SUMS) {
        narrow(sums_of_splits());
        store_partial(over_lanes(sums_of_columns()));
        return;
    } else {
        sums = sums_of_splits();
    }
    start_row(sums);
    for (var first = begin; first < end; first += BLOCK) {
        if (!KEPT) {
            load(first, true);
        }
        for (var i = 0u; i < QUADS; i++) { // unroll
            write_quad(quads[i]);
        }
    }
    finish_row();
}

// (Largest x, 1 where a column is seen, 1 where a score is NaN or plus infinity, 0.)
fn most_of_columns() -> vec4<f32> {
    var most = vec4(LEAST, 0.0, 0.0, 0.0);
    for (var first = begin; first < end; first += BLOCK) {
        if (!KEPT) {
            load(first, false);
        }
        for (var i = 0u; i < QUADS; i++) { // unroll
            most = max(most, most_of(quads[i]));
        }
    }
    return most;
}

fn most_of(quad: Quad) -> vec4<f32> {
    let s = bitcast<vec4<u32>>(scale * quad.x);
    let odd = ((s & vec4(0x7f800000u)) == vec4(0x7f800000u)) & (s != vec4(MINUS_INFINITY));
    let x = select(vec4(LEAST), turned(quad.x), quad.seen & !odd);
    let most = max(max(x.x, x.y), max(x.z, x.w));
    return vec4(most, select(0.0, 1.0, any(quad.seen)), select(0.0, 1.0, any(quad.seen & odd)), 0.0);
}

fn most_over_lanes(from_own: vec4<f32>) -> vec4<f32> {
    if (LANES == 1u) {
        return from_own;
    }
    var own = from_own;
    shared_numbers[invocation] = own;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            own = max(own, shared_numbers[invocation + half]);
            shared_numbers[invocation] = own;
        }
    }
    workgroupBarrier();
    own = shared_numbers[invocation - lane];
    workgroupBarrier();
    return own;
}

fn over_lanes(own: Sums) -> Sums {
    return Sums(sums_over_lanes(own.a), sums_over_lanes(own.b));
}

// T is least where all columns are equal, and largest where one is alone.
fn open(most: vec4<f32>) {
    is_empty = most.y == 0.0;
    is_broken = most.z > 0.0 || !(exponent > 0.0 && exponent <= 1.0);
    exponent = select(exponent, 1.0, is_broken);
    largest = select(most.x, 0.0, is_empty);
    high = 1.0;
    low = min(exp(-exponent * log(f32(params.columns))), 1.0);
}

// Four T from low to high: far apart, by even factors.
fn candidates() -> vec4<f32> {
    let steps = vec4(0.0, 1.0, 2.0, 3.0) / 3.0;
    let even = low + (high - low) * steps;
    let ratio = high / low;
    let found = select(even, low * exp(log(ratio) * steps), vec4(ratio > 2.0));
    return vec4(low, clamp(found.yz, vec2(low), vec2(high)), high);
}

fn candidate_sums() -> Sums {
    let factors = exponent / candidates();
    var sums = NO_SUMS;
    for (var first = begin; first < end; first += BLOCK) {
        if (!KEPT) {
            load(first, false);
        }
        for (var i = 0u; i < QUADS; i++) { // unroll
            let d = below(quads[i]);
            let seen = quads[i].seen;
            sums = plus(sums, factors * d.x, seen.x);
            sums = plus(sums, factors * d.y, seen.y);
            sums = plus(sums, factors * d.z, seen.z);
            sums = plus(sums, factors * d.w, seen.w);
        }
    }
    return sums;
}

fn plus(sums: Sums, y: vec4<f32>, seen: bool) -> Sums {
    let own = powers(y);
    return Sums(sums.a + select(vec4(0.0), own.weight, seen), sums.b + select(vec4(0.0), own.slope, seen));
}

// A T, and there: T * W^e with the sum W of w; where the tangent of that is 1; log W, and its derivative.
struct Point {
    t: f32,
    level: f32,
    root: f32,
    log_sum: f32,
    growth: f32,
}

fn point(t: f32, weight: f32, slope: f32) -> Point {
    let log_weight = log(weight);
    var inverse = 1.0 / weight; // W^-e
    if (POWER == 2u) {
        inverse = inverseSqrt(weight);
    } else if (POWER == 0u) {
        inverse = exp(-exponent * log_weight);
    }
    let root = t + (inverse - t) * weight / slope;
    return Point(t, t / inverse, root, log_weight, (slope / weight - 1.0) / (exponent * t));
}

// Below 1, T * W^e says that T is too small.
fn narrow(sums: Sums) {
    let t = candidates();
    var left = point(t.x, sums.a.x, sums.b.x);
    var right = left;
    if (left.level <= 1.0) {
        right = point(t.y, sums.a.y, sums.b.y);
        if (right.level <= 1.0) {
            left = right;
            right = point(t.z, sums.a.z, sums.b.z);
        }
        if (right.level <= 1.0) {
            left = right;
            right = point(t.w, sums.a.w, sums.b.w);
        }
    }
    // Rounded, both ends may lie on one side: then the nearer is it.
    let rise = right.level - left.level;
    low = right.t;
    high = right.t;
    if (left.level <= 1.0 && right.level > 1.0) {
        high = min(min(left.root, right.root), right.t);
        low = min(max(left.t + (1.0 - left.level) * (right.t - left.t) / rise, left.t), high);
    }
    log_sum = right.log_sum + (high - right.t) * right.growth;
}

// Scores of a quad less the largest, which do not lose what all have in common.
fn below(quad: Quad) -> vec4<f32> {
    let s = scale * quad.x;
    let lowest = LOWEST - max(abs(scale) * largest, LOWEST);
    return select(abs(scale) * (turned(quad.x) - largest), vec4(lowest), (s < vec4(LOWEST)) | !quad.seen);
}

fn turned(x: vec4<f32>) -> vec4<f32> {
    return select(x, -x, vec4(scale < 0.0));
}

// Of [1 + y]+, the power 1/e, and the power 1/e - 1.
struct Powers {
    weight: vec4<f32>,
    slope: vec4<f32>,
}

fn powers(y: vec4<f32>) -> Powers {
    let base = max(1.0 + y, vec4(0.0));
    let some = base > vec4(0.0);
    if (POWER == 1u) {
        return Powers(base, select(vec4(0.0), vec4(1.0), some));
    }
    if (POWER == 2u) {
        return Powers(base * base, base);
    }
    let weight = select(vec4(0.0), exp(log_power(y)), some);
    return Powers(weight, weight / max(base, vec4(0x1p-24)));
}

// The logarithm of that power.
fn log_power(y: vec4<f32>) -> vec4<f32> {
    let base = 1.0 + y;
    let q = y / (2.0 + y);
    let r = q * q;
    let series = 1.0 + r * (1.0 / 3.0 + r * (1.0 / 5.0 + r * (1.0 / 7.0 + r * (1.0 / 9.0 + r * (1.0 / 11.0 + r / 13.0)))));
    return select(2.0 * q * series, log(max(base, vec4(0x1p-24))), base < vec4(0.5)) / exponent;
}

// (exp(u) - 1 - u) / u^2.
fn second_of_exp(u: vec4<f32>) -> vec4<f32> {
    let near = 1.0 / 2.0 + u * (1.0 / 6.0 + u * (1.0 / 24.0 + u * (1.0 / 120.0 + u * (1.0 / 720.0 + u * (1.0 / 5040.0
        + u * (1.0 / 40320.0 + u * (1.0 / 362880.0 + u * (1.0 / 3628800.0))))))));
    let is_near = abs(u) <= vec4(1.0);
    let far = select(u, vec4(1.0), is_near);
    return select((exp(far) - 1.0 - far) / (far * far), near, is_near);
}

fn sums_of_columns() -> Sums {
    var sums = NO_SUMS;
    for (var first = begin; first < end; first += BLOCK) {
        if (!KEPT) {
            load(first, true);
        }
        for (var i = 0u; i < QUADS; i++) { // unroll
            let own = sums_of(quads[i]);
            sums = Sums(sums.a + own.a, sums.b + own.b);
        }
    }
    return settled(sums);
}
