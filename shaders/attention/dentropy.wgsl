// Optional operands: the gradient of each row's entropy, and that.
@group(0) @binding(6) var<storage, read> entropy: array<f32>; // [batch, q_heads, q_len]
@group(0) @binding(18) var<storage, read> dentropy: array<f32>; // [batch, q_heads, q_len]

fn load_dentropy(place: RowPlace) -> f32 {
    let at = place.batch * params.dentropy_batch + place.head * params.dentropy_head + place.i * params.dentropy_row;
    return dentropy[params.dentropy_start + at];
}

fn load_entropy(place: RowPlace) -> f32 {
    let at = place.batch * params.entropy_batch + place.head * params.entropy_head + place.i * params.entropy_row;
    return entropy[params.entropy_start + at];
}
