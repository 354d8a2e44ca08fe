// The values; every row starts and ends at a multiple of four elements.
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>; // [batch, kv_heads, kv_len, v_dim]

fn load_v(base: u32, chunk: u32) -> vec4<f32> {
    return v[base / 4u + chunk];
}
