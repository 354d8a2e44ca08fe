// Optional operand, off: no gradient of the log-sum-exp comes in.
fn dlse_of() -> f32 {
    return 0.0;
}
