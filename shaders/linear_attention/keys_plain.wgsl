// Features of keys under a map that takes each dim for itself.
var<private> feature_chunk: u32;

fn begin_features(first_feature: u32, k_base: u32, begin: u32, end: u32) {
    feature_chunk = first_feature / 4u;
}

// Four features of the key at `base`.
fn key_features(base: u32) -> vec4<f32> {
    return within(feature_chunk, feature(load_k(base, feature_chunk)), 0.0);
}

fn key_maximum() -> vec4<f32> {
    return vec4(0.0);
}
