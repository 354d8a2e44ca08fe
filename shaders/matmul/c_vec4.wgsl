// Four columns of a row of c that starts at element `base`; both are multiples of four.
@group(0) @binding(3) var<storage, read_write> c: array<vec4<f32>>; // [batch, heads, m, n]

fn store_c(base: u32, column: u32, value: vec4<f32>) {
    c[(base + column) / 4u] = value;
}
