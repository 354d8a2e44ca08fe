// Every column that is seen is kept.
fn keeps(found: vec4<f32>, columns: vec4<u32>) -> vec4<bool> {
    return vec4(true);
}
