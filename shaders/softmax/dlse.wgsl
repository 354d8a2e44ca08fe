// Optional operand: the gradient of the log-sum-exp.
@group(0) @binding(5) var<storage, read> dlse: array<f32>; // [rows]

fn dlse_of() -> f32 {
    return dlse[params.dlse_start + row * params.dlse_stride];
}
