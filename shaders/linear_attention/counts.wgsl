// What each key counts in the sums over a chunk: itself, once.
fn start_counts(batch: u32, head: u32) {}

// Features of a key as they are multiplied with its value.
fn scaled(features: vec4<f32>, key: u32) -> vec4<f32> {
    return features;
}

// The same as they are added up.
fn counted(features: vec4<f32>, key: u32) -> vec4<f32> {
    return features;
}
