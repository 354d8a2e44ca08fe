// Optional operand, off: the map is bounded.
fn load_max(batch: u32, head: u32, f: u32) -> f32 {
    return 0.0;
}
