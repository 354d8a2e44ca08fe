// The affine maps of z, off: queries and keys are given.
const MAPPED: bool = false;
const Q_MAP: u32 = 0u;
const K_MAP: u32 = 1u;
const Q_LIN_MAP: u32 = 2u;
const K_LIN_MAP: u32 = 3u;

fn affine(given: vec4<f32>, map: u32, head: u32, chunk: u32) -> vec4<f32> {
    return given;
}

fn affine_gamma(map: u32, head: u32, chunk: u32) -> vec4<f32> {
    return vec4(1.0);
}

fn affine_beta(map: u32, head: u32, chunk: u32) -> vec4<f32> {
    return vec4(0.0);
}
