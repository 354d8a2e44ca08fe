// Nobody asks for the gradient of row_scale.
fn store_slope() {
}
