// Four dims of a row of a gradient that starts at any element; nothing past the row's end.
@group(0) @binding(4) var<storage, read_write> gradient: array<f32>; // [batch, heads, len, dims]

fn store_gradient(base: u32, chunk: u32, value: vec4<f32>) {
    let c = 4u * chunk;
    gradient[base + c] = value.x;
    if (c + 1u < RESULT_DIM) { gradient[base + c + 1u] = value.y; }
    if (c + 2u < RESULT_DIM) { gradient[base + c + 2u] = value.z; }
    if (c + 3u < RESULT_DIM) { gradient[base + c + 3u] = value.w; }
}
