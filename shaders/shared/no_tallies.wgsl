// Rows that are not split.
fn load_tallies(row: u32, invocation: u32) {
}

fn store_tallies(workgroup: u32, invocation: u32) {
}
