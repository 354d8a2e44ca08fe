// The gradient of the bias, written from the one range of terms there is.
fn finish_dbias(batch: u32, head: u32, row: u32, split: u32, c: u32, value: vec4<f32>) {
    store_dbias(params.dbias_start + batch * params.dbias_batch + head * params.dbias_head + row * params.dbias_row, c, value);
}
