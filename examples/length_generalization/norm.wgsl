// y = x / sqrt(mean(x^2) + eps), row by row. An invocation owns a row.
// Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, equation 4.
const EPS: f32 = 1e-6;

@group(0) @binding(0) var<storage, read> x: array<f32>; // [rows, dim]
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // [rows, dim]
@group(0) @binding(2) var<storage, read_write> factors: array<f32>; // [rows]

@compute @workgroup_size(64)
fn norm(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let at = (id.y * count.x + id.x) * 64u + i;
    let rows = arrayLength(&factors);
    if (at >= rows) {
        return;
    }
    let dim = arrayLength(&x) / max(rows, 1u);
    var squares = 0.0;
    for (var c = 0u; c < dim; c++) {
        squares += x[at * dim + c] * x[at * dim + c];
    }
    let factor = 1.0 / sqrt(squares / f32(dim) + EPS);
    factors[at] = factor;
    for (var c = 0u; c < dim; c++) {
        y[at * dim + c] = x[at * dim + c] * factor;
    }
}
