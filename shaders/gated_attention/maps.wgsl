// The affine maps of z: the side's gamma and beta, four dims at a time.
const MAPPED: bool = true;
const Q_MAP: u32 = 0u;
const K_MAP: u32 = 1u;
const Q_LIN_MAP: u32 = 2u;
const K_LIN_MAP: u32 = 3u;

// Four dims of what a map makes of z, rounded once: kernels that weigh a pair agree on its score to the last bit.
fn affine(z: vec4<f32>, map: u32, head: u32, chunk: u32) -> vec4<f32> {
    return fma(z, affine_gamma(map, head, chunk), affine_beta(map, head, chunk));
}

fn affine_gamma(map: u32, head: u32, chunk: u32) -> vec4<f32> {
    return maps[(map * params.q_heads + head) * 2u * KEY_CHUNKS + chunk];
}

fn affine_beta(map: u32, head: u32, chunk: u32) -> vec4<f32> {
    return maps[((map * params.q_heads + head) * 2u + 1u) * KEY_CHUNKS + chunk];
}
