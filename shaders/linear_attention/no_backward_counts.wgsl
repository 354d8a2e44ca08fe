// Rows that are not divided: the divisor has no gradient.
fn start_counts(batch: u32, head: u32) {}

fn scaled(features: vec4<f32>, query: u32) -> vec4<f32> {
    return features;
}

fn counted(features: vec4<f32>, query: u32) -> vec4<f32> {
    return vec4(0.0);
}
