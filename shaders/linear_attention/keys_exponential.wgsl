// Features exp(x) of keys, relative to the chunk's maximum of each.
const LOWEST: f32 = -1.0e38; // the maximum of no keys

var<private> feature_chunk: u32;
var<private> chunk_maximum: vec4<f32>;

fn begin_features(first_feature: u32, k_base: u32, begin: u32, end: u32) {
    feature_chunk = first_feature / 4u;
    chunk_maximum = vec4(LOWEST);
    for (var j = begin; j < end; j++) {
        chunk_maximum = max(chunk_maximum, load_k(k_base + j * params.k_row, feature_chunk));
    }
}

// Four features of the key at `base`.
fn key_features(base: u32) -> vec4<f32> {
    return within(feature_chunk, exp(load_k(base, feature_chunk) - chunk_maximum), 0.0);
}

fn key_maximum() -> vec4<f32> {
    return chunk_maximum;
}
