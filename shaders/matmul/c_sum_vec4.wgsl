// Four columns of a row of a sum of products in f32, to which this one is added; row and column start at multiples of four.
@group(0) @binding(3) var<storage, read_write> sum: array<vec4<f32>>; // [batch, heads, m, n]

fn store_c(base: u32, column: u32, value: vec4<f32>) {
    sum[(base + column) / 4u] += value;
}
