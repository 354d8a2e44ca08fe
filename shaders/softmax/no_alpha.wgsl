// Optional operand, off: every row has the alpha of the params.
fn alpha_of() -> f32 {
    return params.alpha;
}
