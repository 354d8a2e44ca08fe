// Optional outputs: the two logarithms of a row, as bits because NaN has no literal.
@group(0) @binding(6) var<storage, read_write> lse_neg: array<u32>; // [rows], f32
@group(0) @binding(7) var<storage, read_write> lse_pos: array<u32>; // [rows], f32

fn write_lse(row: u32, bits: vec2<u32>) {
    lse_neg[params.lse_neg_start + row * params.lse_neg_stride] = bits.x;
    lse_pos[params.lse_pos_start + row * params.lse_pos_stride] = bits.y;
}
