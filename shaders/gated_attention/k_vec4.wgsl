// The keys; every row starts and ends at a multiple of four elements.
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>; // [batch, kv_heads, kv_len, key_dim]

fn load_k(base: u32, chunk: u32) -> vec4<f32> {
    return k[base / 4u + chunk];
}
