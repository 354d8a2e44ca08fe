// Four dims of a row of o that starts at element `base`, which is a multiple of four.
@group(0) @binding(4) var<storage, read_write> o: array<vec4<f32>>; // [batch, q_heads, q_len, v_dim]

fn load_o(base: u32, chunk: u32) -> vec4<f32> {
    return o[base / 4u + chunk];
}

fn store_o(base: u32, chunk: u32, value: vec4<f32>) {
    o[base / 4u + chunk] = value;
}
