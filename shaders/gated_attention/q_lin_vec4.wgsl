// The queries of the linear part; every row starts and ends at a multiple of four elements.
@group(0) @binding(8) var<storage, read> q_lin: array<vec4<f32>>; // [batch, q_heads, q_len, key_dim]

fn load_q_lin(base: u32, chunk: u32) -> vec4<f32> {
    return q_lin[base / 4u + chunk];
}
