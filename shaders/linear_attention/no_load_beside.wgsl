// Full mode: the state has the maxima of all keys.
fn load_beside(base: u32, chunk: u32) -> vec4<f32> {
    return vec4(0.0);
}
