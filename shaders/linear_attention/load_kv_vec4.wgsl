// Four dims of a key or value that starts at element `base`, which is a multiple of four.
fn load_k(base: u32, chunk: u32) -> vec4<f32> {
    return k[base / 4u + chunk];
}

fn load_v(base: u32, chunk: u32) -> vec4<f32> {
    return v[base / 4u + chunk];
}

// One dim of a key.
fn load_k_dim(base: u32, dim: u32) -> f32 {
    return k[base / 4u + dim / 4u][dim % 4u];
}
