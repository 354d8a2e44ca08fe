// Output: four dims of a row of the gradient of k that starts at any element; nothing past the row's end.
@group(0) @binding(15) var<storage, read_write> dk: array<f32>; // [batch, kv_heads, kv_len, head_dim]

fn store_dk(base: u32, chunk: u32, value: vec4<f32>) {
    let c = 4u * chunk;
    dk[base + c] = value.x;
    if (c + 1u < HEAD_DIM) { dk[base + c + 1u] = value.y; }
    if (c + 2u < HEAD_DIM) { dk[base + c + 2u] = value.z; }
    if (c + 3u < HEAD_DIM) { dk[base + c + 3u] = value.w; }
}
