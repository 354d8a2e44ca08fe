// Output: four keys of a row of the gradient of the bias that starts at element `base`, which is a multiple of four.
@group(0) @binding(19) var<storage, read_write> dbias: array<vec4<f32>>; // [batch or 1, q_heads or 1, q_len or 1, kv_len]

fn store_dbias(base: u32, chunk: u32, value: vec4<f32>) {
    dbias[base / 4u + chunk] = value;
}
