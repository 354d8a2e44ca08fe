// Features in tiles under a map that takes each dim for itself.
fn mapped(c: u32, x: vec4<f32>) -> vec4<f32> {
    return within(c, feature(x), 0.0);
}

// Features 4c to 4c + 3 of the rows; a vec4 holds one for each.
fn row_features(c: u32, base: u32) -> mat4x4<f32> {
    return mapped_rows(c);
}

// The weight of a pair from the product of its features.
fn pair_weight(s: vec4<f32>) -> vec4<f32> {
    return s;
}
