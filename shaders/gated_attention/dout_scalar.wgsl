// The gradient of the output; a row may start at any element, and is 0 past its end whatever lies there.
@group(0) @binding(10) var<storage, read> dout: array<f32>; // [batch, q_heads, q_len, v_dim]

fn load_dout(base: u32, chunk: u32) -> vec4<f32> {
    let c = 4u * chunk;
    var x = vec4(dout[base + c], 0.0, 0.0, 0.0);
    if (c + 1u < V_DIM) { x.y = dout[base + c + 1u]; }
    if (c + 2u < V_DIM) { x.z = dout[base + c + 2u]; }
    if (c + 3u < V_DIM) { x.w = dout[base + c + 3u]; }
    return x;
}
