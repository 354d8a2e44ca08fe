// Optional output: the log-sum-exp of the row's scores, as bits because minus infinity has no literal.
@group(0) @binding(5) var<storage, read_write> lse: array<u32>; // [rows], f32

fn store_lse(bits: u32) {
    lse[params.lse_start + row * params.lse_stride] = bits;
}
