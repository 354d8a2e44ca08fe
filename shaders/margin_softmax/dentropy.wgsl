// Optional operands: the gradient of the entropy, and the entropy.
@group(0) @binding(7) var<storage, read> dentropy: array<f32>; // [rows]
@group(0) @binding(8) var<storage, read> entropy: array<f32>; // [rows]

fn dentropy_of(row: u32) -> vec2<f32> {
    return vec2(
        dentropy[params.dentropy_start + row * params.dentropy_stride],
        entropy[params.entropy_start + row * params.entropy_stride],
    );
}
