// The end of every product: bias, activation, and nothing outside the matrix.
fn write_c(batch: u32, head: u32, row: u32, column: u32, sums: vec4<f32>) {
    if (row >= params.m || column >= params.n) {
        return;
    }
    let base = params.c_start + batch * params.c_batch + head * params.c_head + row * params.c_m;
    store_c(base, column, activate(sums + bias_at(batch, head, row, column)));
}
