// Optional output, off: no loss.
fn store_loss(label: Label, own: f32, is_broken: bool) {
}
