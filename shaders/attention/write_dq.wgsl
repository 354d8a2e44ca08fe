// The rows' gradients, written from the one range of keys there is. Row r of four.
fn finish_dq(rows: Rows, r: u32, split: u32, c: u32, value: vec4<f32>, scale: f32) {
    let base = params.dq_start + rows.batch * params.dq_batch + rows.head[r] * params.dq_head + rows.row[r] * params.dq_row;
    store_dq(base, c, scale * value);
}
