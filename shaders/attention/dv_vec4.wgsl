// Output: four dims of a row of the gradient of v that starts at element `base`, which is a multiple of four.
@group(0) @binding(16) var<storage, read_write> dv: array<vec4<f32>>; // [batch, kv_heads, kv_len, v_dim]

fn store_dv(base: u32, chunk: u32, value: vec4<f32>) {
    dv[base / 4u + chunk] = value;
}
