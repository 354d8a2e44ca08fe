// Optional operand, off: the threshold is a number of the config.
fn load_threshold(chunk: u32) -> vec4<f32> {
    return vec4(params.fixed_threshold);
}
