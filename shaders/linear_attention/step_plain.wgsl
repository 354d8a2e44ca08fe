// Single features under a map that takes each dim for itself.
fn query_feature(base: u32, f: u32) -> f32 {
    return feature(vec4(q[base + f])).x;
}

fn key_feature(base: u32, f: u32) -> f32 {
    return feature(vec4(k[base + f])).x;
}
