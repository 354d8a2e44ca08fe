// A row's factor is its scale, or what stands in that place.
@group(0) @binding(13) var<storage, read_write> facts: array<vec4<u32>>; // [rows]: lse, delta, scale, and another word

fn factor_of(row: u32) -> f32 {
    let own = bitcast<vec4<f32>>(facts[row]);
    return select(own.z, 0.0, own.x == NO_KEY);
}
