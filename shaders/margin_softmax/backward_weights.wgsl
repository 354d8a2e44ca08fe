// The sum of the weights of rows that have a label, by which a mean is divided: added to what rows before have left.
//
// One workgroup; each invocation adds up every WORKGROUPth row, and then they halve their number until one is left: the order is
// the same in every run.
// Workgroup memory: 4 bytes an invocation. Features: none.
const WORKGROUP: u32 = 256u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32,
    held: u32, // rows that there is room for, behind which the sum stands
    first: u32, // whether there are no rows before
}

@group(0) @binding(0) var<uniform> params: Params;

var<workgroup> sums: array<f32, WORKGROUP>;

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
    for (var row = invocation; row < params.rows; row += WORKGROUP) {
        let own = targets[row];
        sum += select(0.0, own.weight, own.is_class == 1u);
    }
    sums[invocation] = sum;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (invocation < half) {
            sums[invocation] += sums[invocation + half];
        }
    }
    if (invocation == 0u) {
        targets[params.held].weight = sums[0] + select(targets[params.held].weight, 0.0, params.first == 1u);
    }
}
