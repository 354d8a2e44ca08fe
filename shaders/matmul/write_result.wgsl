// The end of every product over all of k: bias, activation, and nothing outside the matrix. Of one range, a slice is a matrix.
fn write_sums(slice: u32, row: u32, column: u32, sums: vec4<f32>) {
    if (row >= params.m || column >= params.n) {
        return;
    }
    let batch = slice / params.heads;
    let head = slice % params.heads;
    let base = params.c_start + batch * params.c_batch + head * params.c_head + row * params.c_m;
    store_c(base, column, activate(sums + bias_at(batch, head, row, column)));
}
