// What the gradients of each row's logits have in common.
//
// One invocation owns a row. p - 1 of the target is less the probability of all others, which is not made by a difference.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;
const COMES_IN: bool = false; // whether a row without a label has gradients too

const MINUS_INFINITY: u32 = 0xff800000u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32,
    classes: u32,
    held: u32, // rows that there is room for, behind which the sum of all weights stands
    mean: u32, // whether losses are divided by it
    label_smoothing: f32,
    z_loss: f32,
    lse_start: u32, // starts and strides in elements
    lse_stride: u32,
    others_start: u32,
    others_stride: u32,
    dloss_start: u32,
    dloss_stride: u32, // 0 where all rows have one
    dlse_start: u32,
    dlse_stride: u32,
    entropy_start: u32,
    entropy_stride: u32,
    dentropy_start: u32,
    dentropy_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> lse: array<u32>; // [rows], f32
@group(0) @binding(4) var<storage, read> others: array<u32>; // [rows], f32
@group(0) @binding(5) var<storage, read> dloss: array<f32>; // [rows] or [1]

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
    let own = targets[row];
    let lse_bits = lse[params.lse_start + row * params.lse_stride];
    let others_bits = others[params.others_start + row * params.others_stride];
    let alone = others_bits == MINUS_INFINITY; // no other class, or no label
    let is_number = is_finite(bitcast<f32>(lse_bits)) && (alone || is_finite(bitcast<f32>(others_bits)));
    let has_label = own.label != NONE;
    if (!has_label && !COMES_IN) {
        row_gradients[row] = RowGradient(IDLE, NONE, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
        return;
    }
    if (!is_number || (has_label && own.is_class == 0u)) {
        row_gradients[row] = RowGradient(BROKEN, NONE, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
        return;
    }

    // The gradient of the row's loss over its class's weight.
    var gradient = own.weight * dloss[params.dloss_start + row * params.dloss_stride];
    if (params.mean == 1u) {
        let sum = targets[params.held].weight;
        gradient = select(gradient / select(sum, 1.0, sum == 0.0), 0.0, sum == 0.0);
    }
    gradient = select(0.0, gradient, has_label);

    // The target's probability, and that of all others.
    let above = bitcast<f32>(select(others_bits, 0u, alone));
    let small = exp(-abs(above));
    let less = small / (1.0 + small);
    let more = 1.0 / (1.0 + small);
    let rest = select(select(less, more, above >= 0.0), 0.0, alone);
    let share = select(select(more, less, above >= 0.0), 1.0, alone);
    let nats = select(-max(above, 0.0) - log(1.0 + small), 0.0, alone); // log of the target's

    let own_lse = bitcast<f32>(lse_bits);
    let down = dentropy_of(row);
    let mixed = select(-down.x, 0.0, down.x == 0.0);
    let spread = gradient * params.label_smoothing / f32(params.classes);
    let z_slope = 2.0 * params.z_loss * own_lse;
    let through_lse = dlse_of(row);
    let all = gradient * (1.0 + z_slope) + through_lse + mixed * down.y;
    let of_others = gradient * (params.label_smoothing - rest + z_slope * share) - spread;
    let of_target = of_others + share * (through_lse + mixed * (nats + down.y));
    row_gradients[row] = RowGradient(WHOLE, own.label, own.margin, of_target, own_lse, all, mixed, spread);
}
