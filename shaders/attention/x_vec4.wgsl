// Four dims of a row of o as forward wrote it, or of q, that starts at element `base`, which is a multiple of four.
@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>; // [batch, q_heads, q_len, dim]

fn load_x(base: u32, chunk: u32) -> vec4<f32> {
    return x[base / 4u + chunk];
}
