// The queries, or the z that queries and keys share; every row starts and ends at a multiple of four elements.
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>; // [batch, q_heads, q_len, key_dim]

fn load_q(base: u32, chunk: u32) -> vec4<f32> {
    return q[base / 4u + chunk];
}
