// The values; a row may start at any element, and is 0 past its end whatever lies there.
@group(0) @binding(3) var<storage, read> v: array<f32>; // [batch, kv_heads, kv_len, v_dim]

fn load_v(base: u32, chunk: u32) -> vec4<f32> {
    let c = 4u * chunk;
    var x = vec4(v[base + c], 0.0, 0.0, 0.0);
    if (c + 1u < V_DIM) { x.y = v[base + c + 1u]; }
    if (c + 2u < V_DIM) { x.z = v[base + c + 2u]; }
    if (c + 3u < V_DIM) { x.w = v[base + c + 3u]; }
    return x;
}
