// Optional operand, off: the config's temperature.
fn tau_bits(row: u32) -> u32 {
    return bitcast<u32>(params.tau);
}
