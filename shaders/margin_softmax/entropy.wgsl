// Optional output: the entropy, as bits because NaN has no literal.
@group(0) @binding(5) var<storage, read_write> entropy: array<u32>; // [rows], f32

fn store_entropy(row: u32, bits: u32) {
    entropy[params.entropy_start + row * params.entropy_stride] = bits;
}
