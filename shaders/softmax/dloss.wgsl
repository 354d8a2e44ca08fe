// Optional operand: the gradient of the loss.
@group(0) @binding(14) var<storage, read> dloss: array<f32>; // [rows]

fn dloss_of() -> f32 {
    return dloss[params.dloss_start + row * params.dloss_stride];
}
