// Four dims of a row of o that starts at any element; nothing past the row's end.
@group(0) @binding(4) var<storage, read_write> o: array<f32>; // [batch, q_heads, q_len, v_dim]

fn load_o(base: u32, chunk: u32) -> vec4<f32> {
    let c = 4u * chunk;
    var x = vec4(o[base + c], 0.0, 0.0, 0.0);
    if (c + 1u < V_DIM) { x.y = o[base + c + 1u]; }
    if (c + 2u < V_DIM) { x.z = o[base + c + 2u]; }
    if (c + 3u < V_DIM) { x.w = o[base + c + 3u]; }
    return x;
}

fn store_o(base: u32, chunk: u32, value: vec4<f32>) {
    let c = 4u * chunk;
    o[base + c] = value.x;
    if (c + 1u < V_DIM) { o[base + c + 1u] = value.y; }
    if (c + 2u < V_DIM) { o[base + c + 2u] = value.z; }
    if (c + 3u < V_DIM) { o[base + c + 3u] = value.w; }
}
