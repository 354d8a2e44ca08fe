// The queries, or the z that queries and keys share; a row may start at any element, and is 0 past its end whatever lies there.
@group(0) @binding(1) var<storage, read> q: array<f32>; // [batch, q_heads, q_len, key_dim]

fn load_q(base: u32, chunk: u32) -> vec4<f32> {
    let c = 4u * chunk;
    var x = vec4(q[base + c], 0.0, 0.0, 0.0);
    if (c + 1u < KEY_DIM) { x.y = q[base + c + 1u]; }
    if (c + 2u < KEY_DIM) { x.z = q[base + c + 2u]; }
    if (c + 3u < KEY_DIM) { x.w = q[base + c + 3u]; }
    return x;
}
