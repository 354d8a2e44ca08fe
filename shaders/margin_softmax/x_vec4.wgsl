// Four numbers of a row that starts at a multiple of four.
fn load_four(base: u32, c: u32) -> vec4<f32> {
    return x[(base + c) / 4u];
}
