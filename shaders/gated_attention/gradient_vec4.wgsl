// Four dims of a row of a gradient that starts at element `base`, which is a multiple of four.
@group(0) @binding(4) var<storage, read_write> gradient: array<vec4<f32>>; // [batch, heads, len, dims]

fn store_gradient(base: u32, chunk: u32, value: vec4<f32>) {
    gradient[base / 4u + chunk] = value;
}
