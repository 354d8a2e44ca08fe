// Optional output, off: no merged lse.
fn load_lse(batch: u32, head: u32, i: u32) -> u32 {
    return MINUS_INFINITY;
}

fn store_lse(batch: u32, head: u32, i: u32, bits: u32) {
}
