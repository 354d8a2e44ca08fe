// Optional operand: the gradient of the lse.
@group(0) @binding(6) var<storage, read> dlse: array<f32>; // [rows]

fn dlse_of(row: u32) -> f32 {
    return dlse[params.dlse_start + row * params.dlse_stride];
}
