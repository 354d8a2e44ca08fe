// The weights of four rows times four dims of one value: column c is dim c.
fn product(p: vec4<f32>, value: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(p * value.x, p * value.y, p * value.z, p * value.w);
}

// The same where a row may not see the value, which may then be NaN: 0 * NaN would leak.
fn seen_product(p: vec4<f32>, value: vec4<f32>, see: vec4<bool>) -> mat4x4<f32> {
    let zero = vec4(0.0);
    return mat4x4(
        select(zero, p * value.x, see),
        select(zero, p * value.y, see),
        select(zero, p * value.z, see),
        select(zero, p * value.w, see),
    );
}
