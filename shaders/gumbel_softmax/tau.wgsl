// Optional operand: the temperature, as bits, of which not all are one to divide by.
@group(0) @binding(3) var<storage, read> tau: array<u32>; // [taus], f32

fn tau_bits(row: u32) -> u32 {
    return tau[params.tau_start + min(row, params.taus - 1u) * params.tau_stride];
}
