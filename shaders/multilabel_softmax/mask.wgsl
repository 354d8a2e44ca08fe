// Optional operand: a boolean mask, one byte a class, zero leaves the class out.
@group(0) @binding(3) var<storage, read> mask: array<u32>; // [rows, classes], four bytes a word

fn mask_byte(at: u32) -> bool {
    return ((mask[at / 4u] >> (8u * (at % 4u))) & 0xffu) != 0u;
}

// Which of four classes take part; read only for those of the row.
fn mask_at(row: u32, chunk: u32, inside: vec4<bool>) -> vec4<bool> {
    let at = params.mask_start + row * params.mask_rows + 4u * chunk;
    if (VEC4) {
        return (vec4(mask[at / 4u]) & vec4(0xffu, 0xff00u, 0xff0000u, 0xff000000u)) != vec4(0u);
    }
    var seen = vec4(mask_byte(at), false, false, false);
    if (inside.y) { seen.y = mask_byte(at + 1u); }
    if (inside.z) { seen.z = mask_byte(at + 2u); }
    if (inside.w) { seen.w = mask_byte(at + 3u); }
    return seen;
}
