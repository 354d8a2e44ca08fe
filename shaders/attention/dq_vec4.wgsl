// Output: four dims of a row of the gradient of q that starts at element `base`, which is a multiple of four.
@group(0) @binding(14) var<storage, read_write> dq: array<vec4<f32>>; // [batch, q_heads, q_len, head_dim]

fn store_dq(base: u32, chunk: u32, value: vec4<f32>) {
    dq[base / 4u + chunk] = value;
}
