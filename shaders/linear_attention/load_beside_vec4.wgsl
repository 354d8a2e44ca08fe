// Four dims of a row of another tensor that starts at element `base`, which is a multiple of four.
@group(0) @binding(5) var<storage, read> beside: array<vec4<f32>>; // [batch, heads, len, V_DIM]

fn load_beside(base: u32, chunk: u32) -> vec4<f32> {
    return beside[base / 4u + chunk];
}
