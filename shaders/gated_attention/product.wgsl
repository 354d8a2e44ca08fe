// Adds to four rows their weights times four dims of one value: column c is dim c.
fn add_product(o4: mat4x4<f32>, p: vec4<f32>, value: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(
        fma(p, vec4(value.x), o4[0]),
        fma(p, vec4(value.y), o4[1]),
        fma(p, vec4(value.z), o4[2]),
        fma(p, vec4(value.w), o4[3]),
    );
}

// The same where a row may not see the value, which may then be NaN: 0 * NaN would leak.
fn add_seen_product(o4: mat4x4<f32>, p: vec4<f32>, value: vec4<f32>, see: vec4<bool>) -> mat4x4<f32> {
    let sum = add_product(o4, p, value);
    return mat4x4(
        select(o4[0], sum[0], see),
        select(o4[1], sum[1], see),
        select(o4[2], sum[2], see),
        select(o4[3], sum[3], see),
    );
}
