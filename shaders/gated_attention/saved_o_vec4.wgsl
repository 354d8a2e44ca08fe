// The output, as forward wrote it; every row starts and ends at a multiple of four elements.
const DELTA: bool = true;
@group(0) @binding(4) var<storage, read> o: array<vec4<f32>>; // [batch, q_heads, q_len, v_dim]

fn load_saved_o(base: u32, chunk: u32) -> vec4<f32> {
    return o[base / 4u + chunk];
}
