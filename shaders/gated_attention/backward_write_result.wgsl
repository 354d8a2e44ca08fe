// Results of the one range there is.
fn finish_row(row: u32, split: u32, chunk: u32, value: vec4<f32>) {
    let base = params.gradient_start + owned.batch * params.gradient_batch + owned.head * params.gradient_head + row * params.gradient_row;
    store_gradient(base, chunk, value);
}
