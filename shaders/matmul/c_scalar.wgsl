// Four columns of a row of c that starts at any element; nothing past the row's end.
@group(0) @binding(3) var<storage, read_write> c: array<f32>; // [batch, heads, m, n]

fn store_c(base: u32, column: u32, value: vec4<f32>) {
    c[base + column] = value.x;
    if (column + 1u < params.n) { c[base + column + 1u] = value.y; }
    if (column + 2u < params.n) { c[base + column + 2u] = value.z; }
    if (column + 3u < params.n) { c[base + column + 3u] = value.w; }
}
