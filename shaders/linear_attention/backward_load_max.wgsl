// Gradients of a state are relative to the exponential of minus its maximum, which the sums over all keys have: that of the feature, or
// of the head.
@group(0) @binding(13) var<storage, read_write> key_states: array<vec4<f32>>; // [heads, key_slots, FEATURES, ROW]

fn load_max(batch: u32, head: u32, f: u32) -> f32 {
    let local_head = batch * params.kv_heads + head - params.first_head;
    let slot = (local_head * params.key_slots + params.key_carry) * FEATURES;
    var largest = key_states[(slot + f) * ROW + HEADERS - 1u].y;
    for (var i = 0u; i < params.per_head * FEATURES; i++) {
        largest = max(largest, key_states[(slot + i) * ROW + HEADERS - 1u].y);
    }
    return -largest;
}
