// Output: four dims of a row of the gradient of q that starts at any element; nothing past the row's end.
@group(0) @binding(14) var<storage, read_write> dq: array<f32>; // [batch, q_heads, q_len, head_dim]

fn store_dq(base: u32, chunk: u32, value: vec4<f32>) {
    let c = 4u * chunk;
    dq[base + c] = value.x;
    if (c + 1u < HEAD_DIM) { dq[base + c + 1u] = value.y; }
    if (c + 2u < HEAD_DIM) { dq[base + c + 2u] = value.z; }
    if (c + 3u < HEAD_DIM) { dq[base + c + 3u] = value.w; }
}
