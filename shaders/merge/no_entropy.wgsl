// Optional operand and output, off: no entropy.
fn part_entropy(part: u32, batch: u32, head: u32, i: u32) -> f32 {
    return 0.0;
}

fn load_entropy(batch: u32, head: u32, i: u32) -> f32 {
    return 0.0;
}

fn store_entropy(batch: u32, head: u32, i: u32, value: f32) {
}
