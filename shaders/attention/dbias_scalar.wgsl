// Output: four keys of a row of the gradient of the bias that starts at any element; nothing past the row's end.
@group(0) @binding(19) var<storage, read_write> dbias: array<f32>; // [batch or 1, q_heads or 1, q_len or 1, kv_len]

fn store_dbias(base: u32, chunk: u32, value: vec4<f32>) {
    let c = 4u * chunk;
    dbias[base + c] = value.x;
    if (c + 1u < params.kv_len) { dbias[base + c + 1u] = value.y; }
    if (c + 2u < params.kv_len) { dbias[base + c + 2u] = value.z; }
    if (c + 3u < params.kv_len) { dbias[base + c + 3u] = value.w; }
}
