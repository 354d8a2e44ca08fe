// The gradient of the bias is not wanted.
fn store_bias_sum(group: u32, own_class: u32, sum: f32) {
}
