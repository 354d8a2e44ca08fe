// Full mode: the state holds all keys.
fn add_own_keys(batch: u32, kv_head: u32, begin: u32, first_row: u32, end_row: u32) {}
