// The losses of all rows into one: their sum, or that over the sum of their weights.
//
// A workgroup owns so many rows; each invocation adds up every WORKGROUPth, and then they halve their number until one is left: the
// order is the same in every run. Of many rows, those sums are then reduced like rows, the LAST time by one workgroup.
// Workgroup memory: 12 bytes an invocation. Features: none.
const WORKGROUP: u32 = 256u;
const LAST: bool = true;
const MEAN: bool = false;

const NAN: u32 = 0x7fc00000u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32,
    rows_of_a_workgroup: u32,
    loss_start: u32, // in elements
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> losses: array<vec2<u32>>; // [rows]: the loss and its weight, f32
@group(0) @binding(2) var<storage, read_write> loss: array<u32>; // [1], f32; if not LAST, a sum and its weight for each workgroup

var<workgroup> sums: array<f32, WORKGROUP>;
var<workgroup> weights: array<f32, WORKGROUP>;
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
    var weight = 0.0;
    var bad = 0u;
    let first = workgroup * params.rows_of_a_workgroup;
    let end = min(first + params.rows_of_a_workgroup, params.rows);
    for (var row = first + invocation; row < end; row += WORKGROUP) {
        let own = losses[row];
        if ((own.x & 0x7f800000u) == 0x7f800000u) {
            bad++;
        } else {
            sum += bitcast<f32>(own.x);
            weight += bitcast<f32>(own.y);
        }
    }
    sums[invocation] = sum;
    weights[invocation] = weight;
    broken[invocation] = bad;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (invocation < half) {
            sums[invocation] += sums[invocation + half];
            weights[invocation] += weights[invocation + half];
            broken[invocation] += broken[invocation + half];
        }
    }
    if (invocation == 0u) {
        var result = sums[0];
        if (MEAN && LAST) {
            let none = weights[0] == 0.0;
            result = select(result / select(weights[0], 1.0, none), 0.0, none);
        }
        let bits = select(bitcast<u32>(result), NAN, broken[0] > 0u);
        if (LAST) {
            loss[params.loss_start] = bits;
        } else {
            let at = params.loss_start + 2u * workgroup;
            loss[at] = bits;
            loss[at + 1u] = bitcast<u32>(weights[0]);
        }
    }
}
