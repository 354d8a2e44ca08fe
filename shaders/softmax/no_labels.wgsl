// Optional operand, off: no row has a label.
fn label_of() -> u32 {
    return 0xffffffffu;
}
