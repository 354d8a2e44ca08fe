// Optional operand: the gradient of each row's lse.
@group(0) @binding(17) var<storage, read> dlse: array<f32>; // [batch, q_heads, q_len]

fn load_dlse(place: RowPlace) -> f32 {
    return dlse[params.dlse_start + place.batch * params.dlse_batch + place.head * params.dlse_head + place.i * params.dlse_row];
}
