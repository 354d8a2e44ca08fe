// Optional operand: alpha of each row, or one for all. What is not above 1 and at most 2 becomes 0, as bits: it may be NaN.
@group(0) @binding(12) var<storage, read> alpha: array<f32>; // [rows] or [1]

fn alpha_of() -> f32 {
    let bits = bitcast<u32>(alpha[params.alpha_start + row * params.alpha_stride]);
    return bitcast<f32>(select(0u, bits, bits > 0x3f800000u && bits <= 0x40000000u));
}
