// Four dims of a row that starts at any element; 0 past the row's end, whatever lies there.
fn load_q(base: u32, chunk: u32) -> vec4<f32> {
    let c = 4u * chunk;
    var x = vec4(q[base + c], 0.0, 0.0, 0.0);
    if (HEAD_DIM % 4u == 0u || c + 1u < HEAD_DIM) { x.y = q[base + c + 1u]; }
    if (HEAD_DIM % 4u == 0u || c + 2u < HEAD_DIM) { x.z = q[base + c + 2u]; }
    if (HEAD_DIM % 4u == 0u || c + 3u < HEAD_DIM) { x.w = q[base + c + 3u]; }
    return x;
}

// One dim of a row.
fn load_q_dim(base: u32, dim: u32) -> f32 {
    return q[base + dim];
}
