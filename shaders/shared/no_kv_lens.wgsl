// Optional operand, off: every batch sees all of k.
fn kv_len_of(batch: u32) -> u32 {
    return params.kv_len;
}
