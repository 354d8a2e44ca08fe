// Four dims of a row of o as forward wrote it, or of q, that starts at any element; 0 past the row's end.
@group(0) @binding(4) var<storage, read> x: array<f32>; // [batch, q_heads, q_len, dim]

fn load_x(base: u32, chunk: u32) -> vec4<f32> {
    let c = 4u * chunk;
    var four = vec4(x[base + c], 0.0, 0.0, 0.0);
    if (c + 1u < X_DIM) { four.y = x[base + c + 1u]; }
    if (c + 2u < X_DIM) { four.z = x[base + c + 2u]; }
    if (c + 3u < X_DIM) { four.w = x[base + c + 3u]; }
    return four;
}
