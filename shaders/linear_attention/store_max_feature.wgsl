// Optional output: the running maximum of each feature, written as bits because minus infinity (no key seen) has no
// literal.
@group(0) @binding(7) var<storage, read_write> state_max: array<u32>; // [batch, kv_heads, FEATURES], f32

// Writes the maximum if asked to, and says what the feature's sums are to be multiplied with.
fn store_max(batch: u32, head: u32, f: u32, slot: u32, maximum: f32, write: bool) -> f32 {
    if (write) {
        let at = params.max_start + batch * params.max_batch + head * params.max_head + f * params.max_feature;
        state_max[at] = select(bitcast<u32>(maximum), 0xff800000u, maximum <= -1.0e38);
    }
    return 1.0;
}
