// Optional operand: four dims of a row of the gradient of o that starts at element `base`, which is a multiple of four.
@group(0) @binding(12) var<storage, read> dout: array<vec4<f32>>; // [batch, q_heads, q_len, v_dim]

fn load_dout(base: u32, chunk: u32) -> vec4<f32> {
    return dout[base / 4u + chunk];
}
