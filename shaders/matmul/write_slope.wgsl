// The end of every product over all of k where a gradient of c comes in: that of x = a b + bias, which is only here. Of one range, a
// slice is a matrix. NaN is known by its bits: a driver may take a comparison with it for either.
fn write_sums(slice: u32, row: u32, column: u32, sums: vec4<f32>) {
    if (row >= params.m || column >= params.n) {
        return;
    }
    let batch = slice / params.heads;
    let head = slice % params.heads;
    let base = params.c_start + batch * params.c_batch + head * params.c_head + row * params.c_m;
    let x = sums + bias_at(batch, head, row, column);
    let nan = (bitcast<vec4<u32>>(x) & vec4(0x7fffffffu)) > vec4(0x7f800000u);
    store_c(base, column, dc_at(batch, head, row, column) * select(slope(x), x, nan));
}
