// The gradient of a temperature that all rows share: the sum over the rows, in a fixed order.
//
// One workgroup; an invocation sums every WORKGROUP-th row.
// Workgroup memory: 1 KiB. Features: none.
const WORKGROUP: u32 = 256u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32,
    dtau_start: u32, // in elements
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dtau_rows: array<f32>; // [rows]
@group(0) @binding(2) var<storage, read_write> dtau: array<f32>; // [1]

var<workgroup> sums: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) invocation: u32) {
    var sum = 0.0;
    for (var row = invocation; row < params.rows; row += WORKGROUP) {
        sum += dtau_rows[row];
    }
    sums[invocation] = sum;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (invocation < half) {
            sum += sums[invocation + half];
            sums[invocation] = sum;
        }
    }
    if (invocation == 0u) {
        dtau[params.dtau_start] = sum;
    }
}
