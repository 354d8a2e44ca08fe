// Four numbers of a row of the gradient that starts at a multiple of four.
@group(0) @binding(4) var<storage, read_write> gradient: array<vec4<f32>>; // [count, dim]

fn store_gradient(base: u32, c: u32, value: vec4<f32>) {
    gradient[(base + c) / 4u] = value;
}
