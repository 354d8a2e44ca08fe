// Optional output: what the rows of a workgroup add to the gradient of the one threshold.
@group(0) @binding(5) var<storage, read_write> row_sums: array<f32>; // [rows / WORKGROUP]

var<workgroup> partial: array<f32, WORKGROUP>;

fn add_rows(workgroup: u32, invocation: u32, own: f32) {
    var sum = own;
    for (var step = WORKGROUP / 2u; step > 0u; step /= 2u) {
        partial[invocation] = sum;
        workgroupBarrier();
        if (invocation < step) {
            sum += partial[invocation + step];
        }
        workgroupBarrier();
    }
    if (invocation == 0u) {
        row_sums[params.first_sum + workgroup] = sum;
    }
}
