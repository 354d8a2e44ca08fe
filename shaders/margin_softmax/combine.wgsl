// The results of each row, from its states over all splits of the classes and the target's cosine.
//
// One invocation owns a row. The loss is log(1 + e^x), x being the log-sum-exp of the others above the target's logit: no large
// number is taken from another but in x.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;
const FORM: u32 = 0u; // of the margin, by these numbers
const TIMES: u32 = 1u; // what the angle is multiplied by

const MONOTONE: u32 = 1u;
const EASY: u32 = 2u;
const PIECEWISE: u32 = 3u;
const LEAST: u32 = 4u;
const METRIC: u32 = 5u;
const LOWEST: f32 = -1.0e38; // as in forward.wgsl
const NONE: u32 = 0xffffffffu; // no label
const NAN: u32 = 0x7fc00000u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32,
    classes: u32,
    splits: u32,
    labels_start: u32, // starts and strides in elements
    labels_stride: u32,
    loss_start: u32,
    loss_stride: u32,
    lse_start: u32,
    lse_stride: u32,
    entropy_start: u32,
    entropy_stride: u32,
    predicted_start: u32,
    predicted_stride: u32,
    scale: f32,
    off: f32, // taken off the cosine
    cosine: f32, // of the margin's angle
    sine: f32,
    fall: f32, // the angle times its sine
    end_1: f32, // cosines that part the angles
    end_2: f32,
    end_3: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
// What is in the workspace is declared to be written: where the losses are to be reduced they go there too, and wgpu binds a buffer
// to be read or to be written as a whole.
@group(0) @binding(1) var<storage, read_write> states: array<vec4<f32>>; // [splits, rows]: largest logit, sum, weighted, probe
@group(0) @binding(2) var<storage, read_write> targets: array<f32>; // [rows]
@group(0) @binding(3) var<storage, read> labels: array<u32>; // [rows]
@group(0) @binding(4) var<storage, read_write> loss: array<u32>; // [rows], f32

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

    // The other classes, relative to the largest of their logits.
    var largest = LOWEST;
    for (var split = 0u; split < params.splits; split++) {
        largest = max(largest, states[split * params.rows + row].x);
    }
    var sum = 0.0;
    var weighted = 0.0; // by the logits below the largest
    var probe = 0.0; // of all cosines: NaN where one is
    for (var split = 0u; split < params.splits; split++) {
        let state = states[split * params.rows + row];
        let down = state.x - largest;
        let factor = exp(down);
        sum += factor * state.y;
        weighted += factor * (state.z + down * state.y);
        probe += state.w;
    }

    // The target.
    let label = labels[params.labels_start + row * params.labels_stride];
    let has_target = label < params.classes;
    var own = LOWEST;
    if (has_target) {
        own = params.scale * with_margin(targets[row]);
    }
    var above = LOWEST; // the others' log-sum-exp above the target's logit
    if (has_target && sum > 0.0) {
        above = largest - own + log(sum);
    }

    // All classes.
    let top = max(largest, own);
    let down = largest - top;
    let own_down = own - top;
    let rest = exp(down);
    let share = select(0.0, exp(own_down), has_target);
    let total = rest * sum + share;
    let mixed = rest * (weighted + down * sum) + share * own_down;

    let broken = (bitcast<u32>(probe) & 0x7f800000u) == 0x7f800000u;
    let unknown = broken || (label != NONE && !has_target);
    let nats = log(total) - mixed / total;
    store_loss(row, select(select(bitcast<u32>(softplus(above)), NAN, unknown), 0u, label == NONE));
    store_lse(row, select(bitcast<u32>(top + log(total)), NAN, unknown));
    store_entropy(row, select(bitcast<u32>(max(nats, 0.0)), NAN, unknown));
    store_predicted(row, broken);
}

fn store_loss(row: u32, bits: u32) {
    loss[params.loss_start + row * params.loss_stride] = bits;
}

// log(1 + e^x), relatively right where it is small: 2 artanh(y / (2 + y)) for y = e^-|x|.
fn softplus(x: f32) -> f32 {
    let small = exp(-abs(x));
    let y = small / (2.0 + small);
    let s = y * y;
    let series = 1.0 + s * (1.0 / 3.0 + s * (1.0 / 5.0 + s * (1.0 / 7.0 + s * (1.0 / 9.0 + s * (1.0 / 11.0 + s / 13.0)))));
    return max(x, 0.0) + 2.0 * y * series;
}
