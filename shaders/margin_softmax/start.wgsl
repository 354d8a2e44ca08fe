// The start of every row: what its label says, and states that have met nothing.
//
// One invocation owns a row.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;
const ANGLE: bool = false; // whether margins are angles

const PI: u32 = 0x40490fdbu;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32,
    classes: u32,
    splits: u32,
    labels_start: u32, // starts and strides in elements
    labels_stride: u32,
    class_weights_start: u32,
    class_weights_stride: u32,
    class_margins_start: u32,
    class_margins_stride: u32,
    row_margins_start: u32,
    row_margins_stride: u32,
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
    let own_class = min(label, params.classes - 1u);
    let weight = weight_of(own_class);
    let margin = margin_of(row, own_class);
    let bits = bitcast<u32>(margin);
    let fits = is_finite(margin) && (!ANGLE || bits <= PI || bits == 0x80000000u);
    let is_class = label < params.classes && is_finite(weight) && fits;
    targets[row] = Target(label, select(0u, 1u, is_class), weight, margin, 0.0, 0.0);
    for (var split = 0u; split < params.splits; split++) {
        states[split * params.rows + row] = NOTHING;
    }
}
