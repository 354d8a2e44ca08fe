// Four dims of a row that starts at element `base`, which is a multiple of four.
fn load_q(base: u32, chunk: u32) -> vec4<f32> {
    return q[base / 4u + chunk];
}
