// Rows of values under a bounded map: nothing to find out first.
fn begin_rows(base: u32, q_base: u32, last_row: u32) {}
