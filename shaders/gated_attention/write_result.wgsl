// A row's results, divided and gated, written from the one range of keys there is. `n` is the number of keys it sees.
fn finish_o(batch: u32, head: u32, i: u32, split: u32, c: u32, value: vec4<f32>, n: f32, sum: f32) {
    // 0 where no key is visible, whatever the gate holds.
    let gated = value / row_divisor(n, sum) * gate(batch, head, i, c);
    let base = params.o_start + batch * params.o_batch + head * params.o_head + i * params.o_row;
    store_o(base, c, select(vec4(0.0), gated, n > 0.0));
}

fn finish_row(batch: u32, head: u32, i: u32, split: u32, row_max: f32, n: f32, sum: f32) {
}
