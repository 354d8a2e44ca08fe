// Optional operand: the gradient of the entropy.
@group(0) @binding(6) var<storage, read> dentropy: array<f32>; // [rows]

fn dentropy_of() -> f32 {
    return dentropy[params.dentropy_start + row * params.dentropy_stride];
}
