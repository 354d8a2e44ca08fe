// Four dims of a row that starts at element `base`, which is a multiple of four.
fn load_q(base: u32, chunk: u32) -> vec4<f32> {
    return q[base / 4u + chunk];
}

// One dim of a row.
fn load_q_dim(base: u32, dim: u32) -> f32 {
    return q[base / 4u + dim / 4u][dim % 4u];
}
