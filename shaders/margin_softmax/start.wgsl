// The start of every row: what its label says, and states that have met nothing.
//
// One invocation owns a row.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;
const ANGLE: bool = false; // whether margins are angles
const SAMPLED: bool = false; // whether classes are listed

const PI: u32 = 0x40490fdbu;
const UNKNOWN: u32 = 0xfffffffeu; // a label that is not listed

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32,
    classes: u32, // that take part, and in all
    all_classes: u32,
    splits: u32,
    labels_start: u32, // starts and strides in elements
    labels_stride: u32,
    class_weights_start: u32,
    class_weights_stride: u32,
    class_margins_start: u32,
    class_margins_stride: u32,
    row_margins_start: u32,
    row_margins_stride: u32,
    sampled_start: u32,
    sampled_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> labels: array<u32>; // [rows]

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
    let label = labels[params.labels_start + row * params.labels_stride];
    let own_class = min(label, params.all_classes - 1u);
    let weight = weight_of(own_class);
    let margin = margin_of(row, own_class);
    let bits = bitcast<u32>(margin);
    let fits = is_finite(margin) && (!ANGLE || bits <= PI || bits == 0x80000000u);
    let place = place_of(label);
    let is_class = label < params.all_classes && place != UNKNOWN && is_finite(weight) && fits;
    targets[row] = Target(place, select(0u, 1u, is_class), weight, margin, 0.0, 0.0);
    for (var split = 0u; split < params.splits; split++) {
        states[split * params.rows + row] = NOTHING;
    }
}

// The place of a class among those that take part.
fn place_of(label: u32) -> u32 {
    if (!SAMPLED || label == NONE) {
        return label;
    }
    // How many listed ones are below it.
    var below = 0u;
    for (var left = params.classes; left > 0u; ) {
        let half = left / 2u;
        let is_below = number_of(below + half) < label;
        below += select(0u, half + 1u, is_below);
        left = select(half, left - half - 1u, is_below);
    }
    let is_listed = number_of(min(below, params.classes - 1u)) == label;
    return select(UNKNOWN, below, is_listed);
}
