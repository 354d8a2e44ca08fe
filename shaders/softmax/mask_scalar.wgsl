// Optional operand: a boolean mask, one byte a column, zero hides it.
@group(0) @binding(2) var<storage, read> mask: array<u32>; // [rows, columns], four bytes a word

fn mask_byte(at: u32) -> bool {
    return ((mask[at / 4u] >> (8u * (at % 4u))) & 0xffu) != 0u;
}

fn mask_at(columns: vec4<u32>) -> vec4<bool> {
    let at = vec4(params.mask_start + row * params.mask_rows) + columns;
    return vec4(mask_byte(at.x), mask_byte(at.y), mask_byte(at.z), mask_byte(at.w));
}
