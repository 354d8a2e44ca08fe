// Four dims of a key or value that starts at any element; 0 past its end, whatever lies there.
fn load_k(base: u32, chunk: u32) -> vec4<f32> {
    let c = 4u * chunk;
    var x = vec4(k[base + c], 0.0, 0.0, 0.0);
    if (HEAD_DIM % 4u == 0u || c + 1u < HEAD_DIM) { x.y = k[base + c + 1u]; }
    if (HEAD_DIM % 4u == 0u || c + 2u < HEAD_DIM) { x.z = k[base + c + 2u]; }
    if (HEAD_DIM % 4u == 0u || c + 3u < HEAD_DIM) { x.w = k[base + c + 3u]; }
    return x;
}

fn load_v(base: u32, chunk: u32) -> vec4<f32> {
    let c = 4u * chunk;
    var x = vec4(v[base + c], 0.0, 0.0, 0.0);
    if (V_DIM % 4u == 0u || c + 1u < V_DIM) { x.y = v[base + c + 1u]; }
    if (V_DIM % 4u == 0u || c + 2u < V_DIM) { x.z = v[base + c + 2u]; }
    if (V_DIM % 4u == 0u || c + 3u < V_DIM) { x.w = v[base + c + 3u]; }
    return x;
}

// One dim of a key.
fn load_k_dim(base: u32, dim: u32) -> f32 {
    return k[base + dim];
}
