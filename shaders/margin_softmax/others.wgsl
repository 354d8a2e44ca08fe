// Optional output: how far the others are above the target, as bits because NaN has no literal.
@group(0) @binding(7) var<storage, read_write> others: array<u32>; // [rows], f32

fn store_others(row: u32, bits: u32) {
    others[params.others_start + row * params.others_stride] = bits;
}
