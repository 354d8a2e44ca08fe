// The rows' results, written from the one range of keys there is. Row r of four.
fn o_base(rows: Rows, r: u32) -> u32 {
    return params.o_start + rows.batch * params.o_batch + rows.head[r] * params.o_head + rows.row[r] * params.o_row;
}

// Four dims of o as they are kept during the walk over the keys.
fn get_o(rows: Rows, r: u32, split: u32, c: u32) -> vec4<f32> {
    return load_o(o_base(rows, r), c);
}

fn put_o(rows: Rows, r: u32, split: u32, c: u32, value: vec4<f32>) {
    store_o(o_base(rows, r), c, value);
}

// The end of the walk. A row that sees no key has sum 0 and only zeros in o: it is divided by 1.
fn finish_o(rows: Rows, r: u32, split: u32, c: u32, value: vec4<f32>, sum: f32) {
    put_o(rows, r, split, c, value / select(sum, 1.0, sum == 0.0));
}

fn finish_row(rows: Rows, r: u32, split: u32, row_max: f32, sum: f32, weighted: f32) {
    store_statistics(rows.batch, rows.head[r], rows.row[r], row_max, sum, weighted);
}
