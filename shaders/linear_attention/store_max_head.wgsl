// Optional output: one running maximum per head, the largest of its features', written as bits because minus infinity
// (no key seen) has no literal.
@group(0) @binding(7) var<storage, read_write> state_max: array<u32>; // [batch, kv_heads, 1], f32

// Writes the maximum if asked to, and says what the feature's sums are to be multiplied with.
fn store_max(batch: u32, head: u32, f: u32, slot: u32, maximum: f32, write: bool) -> f32 {
    var largest = maximum;
    for (var i = 0u; i < FEATURES; i++) {
        largest = max(largest, states[slot + i * ROW + HEADERS - 1u].y);
    }
    if (write && f == 0u) {
        let at = params.max_start + batch * params.max_batch + head * params.max_head;
        state_max[at] = select(bitcast<u32>(largest), 0xff800000u, largest <= -1.0e38);
    }
    return exp(maximum - largest);
}
