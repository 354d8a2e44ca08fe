// Output: four dims of a row of the gradient of k that starts at element `base`, which is a multiple of four.
@group(0) @binding(15) var<storage, read_write> dk: array<vec4<f32>>; // [batch, kv_heads, kv_len, head_dim]

fn store_dk(base: u32, chunk: u32, value: vec4<f32>) {
    dk[base / 4u + chunk] = value;
}
