// Optional operand: a boolean mask, one byte per class, zero hides it.
@group(0) @binding(3) var<storage, read> mask: array<u32>; // [rows, columns], four bytes a word

fn mask4(row: u32, chunk: u32) -> vec4<bool> {
    let at = params.mask_start + row * params.mask_rows + 4u * chunk;
    let off = at % 4u;
    var word = mask[at / 4u] >> (8u * off);
    // The bytes that lie in the next word, if the row has them.
    if (off != 0u && 4u * chunk + 4u - off < params.columns) {
        word |= mask[at / 4u + 1u] << (32u - 8u * off);
    }
    return ((vec4(word) >> vec4(0u, 8u, 16u, 24u)) & vec4(0xffu)) != vec4(0u);
}
