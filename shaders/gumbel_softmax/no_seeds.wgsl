// Optional operand, off: the key's seed for all rows.
fn seed_of(row: u32, low: u32) -> u32 {
    return low;
}
