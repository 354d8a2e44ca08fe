// Optional output: the lse, as bits because NaN has no literal.
@group(0) @binding(4) var<storage, read_write> lse: array<u32>; // [rows], f32

fn store_lse(row: u32, bits: u32) {
    lse[params.lse_start + row * params.lse_stride] = bits;
}
