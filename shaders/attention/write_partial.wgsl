// The rows' results over one range of keys, for the combine kernel: first (row_max, sum, weighted, 0), then o undivided.
// Row r of four.
@group(0) @binding(11) var<storage, read_write> partials: array<vec4<f32>>; // [batch, q_heads, q_len, splits, 1 + v_dim / 4]

fn partial_base(rows: Rows, r: u32, split: u32) -> u32 {
    let row = (rows.batch * params.q_heads + rows.head[r]) * params.q_len + rows.row[r];
    return (row * params.splits + split) * (1u + V_CHUNKS);
}

// Four dims of o as they are kept during the walk over the keys.
fn get_o(rows: Rows, r: u32, split: u32, c: u32) -> vec4<f32> {
    return partials[partial_base(rows, r, split) + 1u + c];
}

fn put_o(rows: Rows, r: u32, split: u32, c: u32, value: vec4<f32>) {
    partials[partial_base(rows, r, split) + 1u + c] = value;
}

// The end of the walk.
fn finish_o(rows: Rows, r: u32, split: u32, c: u32, value: vec4<f32>, sum: f32) {
    put_o(rows, r, split, c, value);
}

fn finish_row(rows: Rows, r: u32, split: u32, row_max: f32, sum: f32, weighted: f32) {
    partials[partial_base(rows, r, split)] = vec4(row_max, sum, weighted, 0.0);
}
