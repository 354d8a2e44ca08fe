// The losses of all rows into one: their sum, or their mean over the rows that have a label.
//
// One workgroup; each invocation adds up every WORKGROUPth row, and then they halve their number until one is left: the order is
// the same in every run.
// Workgroup memory: 12 bytes an invocation. Features: none.
const WORKGROUP: u32 = 256u;
const MEAN: bool = false;

const NONE: u32 = 0xffffffffu; // no label
const NAN: u32 = 0x7fc00000u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32,
    labels_start: u32, // starts and strides in elements
    labels_stride: u32,
    loss_start: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> losses: array<u32>; // [rows], f32
@group(0) @binding(2) var<storage, read> labels: array<u32>; // [rows]
@group(0) @binding(3) var<storage, read_write> loss: array<u32>; // [1], f32

var<workgroup> sums: array<f32, WORKGROUP>;
var<workgroup> labelled: array<u32, WORKGROUP>;
var<workgroup> broken: array<u32, WORKGROUP>; // how many are NaN

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    if (workgroup >= params.end_workgroup) {
        return;
    }
    var sum = 0.0;
    var count = 0u;
    var bad = 0u;
    for (var row = invocation; row < params.rows; row += WORKGROUP) {
        let bits = losses[row];
        if ((bits & 0x7f800000u) == 0x7f800000u) {
            bad++;
        } else {
            sum += bitcast<f32>(bits);
        }
        if (labels[params.labels_start + row * params.labels_stride] != NONE) {
            count++;
        }
    }
    sums[invocation] = sum;
    labelled[invocation] = count;
    broken[invocation] = bad;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (invocation < half) {
            sums[invocation] += sums[invocation + half];
            labelled[invocation] += labelled[invocation + half];
            broken[invocation] += broken[invocation + half];
        }
    }
    if (invocation == 0u) {
        var result = sums[0];
        if (MEAN) {
            result /= f32(max(labelled[0], 1u));
        }
        loss[params.loss_start] = select(bitcast<u32>(result), NAN, broken[0] > 0u);
    }
}
