// The gradient of the sigmoid cross-entropy of each class, summed over classes and averaged over rows: sigmoid(s) - t. An invocation
// owns a score.
const ROWS: f32 = 256.0;

@group(0) @binding(0) var<storage, read> scores: array<f32>; // [rows, classes], as all here
@group(0) @binding(1) var<storage, read> labels: array<f32>;
@group(0) @binding(2) var<storage, read_write> dscores: array<f32>;

@compute @workgroup_size(64)
fn sigmoid(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let at = (id.y * count.x + id.x) * 64u + i;
    if (at < arrayLength(&scores)) {
        dscores[at] = (1.0 / (1.0 + exp(-scores[at])) - labels[at]) / ROWS;
    }
}
