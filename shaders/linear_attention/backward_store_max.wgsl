// The gradient of a state that came in: its maximum says what it was multiplied with. The sums go with what they are relative to.
@group(0) @binding(7) var<storage, read> state_max: array<u32>; // [batch, kv_heads, FEATURES or 1], f32

// What the feature's sums are to be multiplied with: nothing, where the state had seen no key.
fn store_max(batch: u32, head: u32, f: u32, slot: u32, maximum: f32, write: bool) -> f32 {
    let bits = state_max[params.max_start + batch * params.max_batch + head * params.max_head + f * params.max_feature];
    let before = bitcast<f32>(select(bits, 0u, bits == 0xff800000u));
    return select(exp(min(before + maximum, 0.0)), 0.0, bits == 0xff800000u);
}
