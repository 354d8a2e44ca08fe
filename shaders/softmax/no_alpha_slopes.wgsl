// Nobody asks for the gradient of alpha.
fn store_alpha_slope(own: f32) {
}
