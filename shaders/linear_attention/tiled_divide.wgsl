// Rows of a tile under a bounded map: nothing to find out first, and at the end a division by the sum of the weights plus eps,
// where normalised.
fn begin_rows(base: u32, q_base: u32, last_row: u32) {}

fn finish(value: vec4<f32>, g: u32, r: u32) -> vec4<f32> {
    if (NORMALIZED) {
        return value / (sum[g][r] + params.eps);
    }
    return value;
}
