// The gradient of the output; every row starts and ends at a multiple of four elements.
@group(0) @binding(10) var<storage, read> dout: array<vec4<f32>>; // [batch, q_heads, q_len, v_dim]

fn load_dout(base: u32, chunk: u32) -> vec4<f32> {
    return dout[base / 4u + chunk];
}
