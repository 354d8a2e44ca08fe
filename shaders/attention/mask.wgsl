// Optional operand: a boolean mask, one byte per pair, zero hides the key.
@group(0) @binding(8) var<storage, read> mask: array<u32>; // [batch, q_heads, q_len, kv_len], four bytes a word

fn mask_base(rows: Rows) -> vec4<u32> {
    return params.mask_start + rows.batch * params.mask_batch + rows.head * params.mask_head + rows.row * params.mask_row;
}

fn mask_byte(index: u32) -> bool {
    return ((mask[index / 4u] >> (8u * (index % 4u))) & 0xffu) != 0u;
}

// Which rows see their key j; read only for rows that see it by position (`see`).
fn mask_at(rows: Rows, j: vec4<u32>, see: vec4<bool>) -> vec4<bool> {
    let at = mask_base(rows) + j;
    var seen = vec4(false);
    if (see.x) { seen.x = mask_byte(at.x); }
    if (see.y) { seen.y = mask_byte(at.y); }
    if (see.z) { seen.z = mask_byte(at.z); }
    if (see.w) { seen.w = mask_byte(at.w); }
    return seen;
}

// The keys each row sees: those of [lo, hi) that the mask leaves.
fn visible_keys(rows: Rows) -> vec4<u32> {
    var n = vec4(0u);
    let lo = rows.lo;
    let hi = rows.hi;
    let begin = min(min(lo.x, lo.y), min(lo.z, lo.w));
    let end = max(max(hi.x, hi.y), max(hi.z, hi.w));
    for (var j = begin; j < end; j++) {
        let see = (vec4(j) >= lo) & (vec4(j) < hi);
        n += select(vec4(0u), vec4(1u), mask_at(rows, vec4(u32(j)), see));
    }
    return n;
}
