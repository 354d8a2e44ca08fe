// The values, not read.
fn load_v(base: u32, chunk: u32) -> vec4<f32> {
    return vec4(0.0);
}
