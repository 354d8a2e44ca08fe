// Optional output: what the rows of a workgroup add to the gradients of its classes' thresholds.
@group(0) @binding(8) var<storage, read_write> class_sums: array<vec4<f32>>; // [sums, classes / 4]

var<workgroup> partial: array<vec4<f32>, WORKGROUP>;

fn add_rows(place: u32, chunk: u32, invocation: u32, own: vec4<f32>) {
    var sum = own;
    for (var step = ROWS / 2u; step > 0u; step /= 2u) {
        partial[invocation] = sum;
        workgroupBarrier();
        if (invocation / LANES < step) {
            sum += partial[invocation + step * LANES];
        }
        workgroupBarrier();
    }
    if (invocation < LANES && 4u * chunk < params.classes) {
        class_sums[place * ((params.classes + 3u) / 4u) + chunk] = sum;
    }
}
