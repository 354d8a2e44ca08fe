// Optional operand, off: no boolean mask.
fn mask_at(batch: u32, head: u32, row: vec4<u32>, j: u32, see: vec4<bool>) -> vec4<bool> {
    return see;
}

// The keys each row sees: all of [lo, hi).
fn visible_keys(batch: u32, head: u32, row: vec4<u32>, lo: vec4<i32>, hi: vec4<i32>) -> vec4<u32> {
    return vec4<u32>(max(hi - lo, vec4(0)));
}
