// The gradient of y = norm(x) with respect to x, beside that of what goes around it: dx += factor (dy - y mean(y dy)). An invocation owns a
// row.
@group(0) @binding(0) var<storage, read> y: array<f32>; // [rows, dim], as all here
@group(0) @binding(1) var<storage, read> factors: array<f32>; // [rows]
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(64)
fn norm_backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let at = (id.y * count.x + id.x) * 64u + i;
    let rows = arrayLength(&factors);
    if (at >= rows) {
        return;
    }
    let dim = arrayLength(&y) / max(rows, 1u);
    var along = 0.0;
    for (var c = 0u; c < dim; c++) {
        along += y[at * dim + c] * dy[at * dim + c];
    }
    along /= f32(dim);
    for (var c = 0u; c < dim; c++) {
        dx[at * dim + c] += factors[at] * (dy[at * dim + c] - y[at * dim + c] * along);
    }
}
