// Output: four dims of a row of the gradient of v that starts at any element; nothing past the row's end.
@group(0) @binding(16) var<storage, read_write> dv: array<f32>; // [batch, kv_heads, kv_len, v_dim]

fn store_dv(base: u32, chunk: u32, value: vec4<f32>) {
    let c = 4u * chunk;
    dv[base + c] = value.x;
    if (c + 1u < V_DIM) { dv[base + c + 1u] = value.y; }
    if (c + 2u < V_DIM) { dv[base + c + 2u] = value.z; }
    if (c + 3u < V_DIM) { dv[base + c + 3u] = value.w; }
}
