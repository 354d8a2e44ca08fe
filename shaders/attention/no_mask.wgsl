// Optional operand, off: no boolean mask.
fn mask_at(rows: Rows, j: vec4<u32>, see: vec4<bool>) -> vec4<bool> {
    return see;
}

// The keys each row sees: all of [lo, hi).
fn visible_keys(rows: Rows) -> vec4<u32> {
    return vec4<u32>(max(rows.hi - rows.lo, vec4(0)));
}
