// Optional operand: the running maximum, bound as bits because minus infinity (no key seen) has no literal.
@group(0) @binding(7) var<storage, read> state_max: array<u32>; // [batch, kv_heads, FEATURES or 1], f32

fn load_max(batch: u32, head: u32, f: u32) -> f32 {
    let at = params.max_start + batch * params.max_batch + head * params.max_head + f * params.max_feature;
    let bits = state_max[at];
    return max(bitcast<f32>(select(bits, bitcast<u32>(LOWEST), bits == 0xff800000u)), LOWEST);
}
