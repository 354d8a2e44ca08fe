// Optional operand, off: the margin is the same for all.
fn margin_of(row: u32, own_class: u32) -> f32 {
    return 0.0;
}
