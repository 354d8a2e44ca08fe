// Optional operand: a boolean mask, one byte a column, zero hides it; the bytes of a four are a word.
@group(0) @binding(2) var<storage, read> mask: array<u32>; // [rows, columns], four bytes a word

fn mask_at(columns: vec4<u32>) -> vec4<bool> {
    let word = mask[(params.mask_start + row * params.mask_rows + columns.x) / 4u];
    return (vec4(word) & vec4(0xffu, 0xff00u, 0xff0000u, 0xff000000u)) != vec4(0u);
}
