// Rows under a bounded map: nothing to find out first, and a division by the sum of the weights plus eps.
fn begin_rows(base: u32, q_base: u32, last_row: u32) {}

fn finish(value: vec4<f32>, at: u32, g: u32, r: u32) -> vec4<f32> {
    return value / (sum[g][r] + params.eps);
}
