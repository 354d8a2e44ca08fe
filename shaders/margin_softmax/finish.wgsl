// The results of each row, from its states over all splits of the classes and the target's cosine.
//
// One invocation owns a row. lse - l_t is log(1 + e^x), x being the log-sum-exp of the others above the target's logit: no large
// number is taken from another but in x. lse - mean l is log of the sum of exp(l - top), and the mean of top - l.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;
const FORM: u32 = 0u; // of the margin, by the numbers of margin.wgsl
const TIMES: u32 = 1u; // what the angle is multiplied by
const GIVEN: bool = false; // whether a tensor holds the margins
const ANGLE: bool = false; // whether they are angles

const NAN: u32 = 0x7fc00000u;
const MINUS_INFINITY: u32 = 0xff800000u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32,
    classes: u32,
    splits: u32,
    scale: f32,
    label_smoothing: f32,
    z_loss: f32,
    losses_start: u32, // starts and strides in elements
    loss_start: u32,
    loss_stride: u32,
    lse_start: u32,
    lse_stride: u32,
    entropy_start: u32,
    entropy_stride: u32,
    predicted_start: u32,
    predicted_stride: u32,
    sampled_start: u32,
    sampled_stride: u32,
    others_start: u32,
    others_stride: u32,
    off: f32, // taken off the cosine
    cosine: f32, // of the margin's angle
    sine: f32,
    fall: f32, // the angle times its sine
    end_1: f32, // cosines that part the angles
    end_2: f32,
    end_3: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    let row = workgroup * WORKGROUP + invocation;
    if (workgroup >= params.end_workgroup || row >= params.rows) {
        return;
    }

    // The other classes, and the target.
    var state = NOTHING;
    for (var split = 0u; split < params.splits; split++) {
        state = both(state, states[split * params.rows + row]);
    }
    let own_target = targets[row];
    let none = own_target.label == NONE;
    let has_target = own_target.is_class == 1u;
    var own = LOWEST;
    if (has_target) {
        own = params.scale * with_margin(own_target.cosine, turn_of(own_target.margin)).x + own_target.bias;
    }
    let broken = state.broken == 1u || !is_finite(own);
    let unknown = broken || !(none || has_target);
    own = max(own, LOWEST);
    let has_others = has_target && state.sum > 0.0;
    var above = LOWEST; // the others' log-sum-exp above the target's logit
    if (has_others) {
        above = state.largest - own + log(state.sum);
    }

    // All classes, relative to the largest logit.
    let top = max(state.largest, own);
    let all = rebased(state, top);
    let own_down = own - top;
    let share = select(0.0, exp(own_down), has_target);
    let total = all.sum + share;
    let mixed = all.weighted + share * own_down;
    let lse = top + log(total);
    let nats = log(total) - mixed / total;

    let distance = (all.below - select(0.0, own_down, has_target)) / f32(params.classes);
    let smoothed = params.label_smoothing * (log(total) + distance);
    let whole = (1.0 - params.label_smoothing) * softplus(above) + smoothed + params.z_loss * lse * lse;
    let loss = own_target.weight * whole;
    store_loss(row, select(select(bitcast<u32>(loss), NAN, unknown), 0u, none), select(own_target.weight, 0.0, none));
    store_lse(row, select(bitcast<u32>(lse), NAN, unknown));
    store_entropy(row, select(bitcast<u32>(max(nats, 0.0)), NAN, unknown));
    store_others(row, select(select(MINUS_INFINITY, bitcast<u32>(above), has_others), NAN, unknown));
    store_predicted(row, select(state.best_class, NONE, state.broken == 1u));
}

// log(1 + e^x), relatively right where it is small: 2 artanh(y / (2 + y)) for y = e^-|x|.
fn softplus(x: f32) -> f32 {
    let small = exp(-abs(x));
    let y = small / (2.0 + small);
    let s = y * y;
    let series = 1.0 + s * (1.0 / 3.0 + s * (1.0 / 5.0 + s * (1.0 / 7.0 + s * (1.0 / 9.0 + s * (1.0 / 11.0 + s / 13.0)))));
    return max(x, 0.0) + 2.0 * y * series;
}
