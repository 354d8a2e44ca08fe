// The keys; a row may start at any element, and is 0 past its end whatever lies there.
@group(0) @binding(2) var<storage, read> k: array<f32>; // [batch, kv_heads, kv_len, key_dim]

fn load_k(base: u32, chunk: u32) -> vec4<f32> {
    let c = 4u * chunk;
    var x = vec4(k[base + c], 0.0, 0.0, 0.0);
    if (c + 1u < KEY_DIM) { x.y = k[base + c + 1u]; }
    if (c + 2u < KEY_DIM) { x.z = k[base + c + 2u]; }
    if (c + 3u < KEY_DIM) { x.w = k[base + c + 3u]; }
    return x;
}
