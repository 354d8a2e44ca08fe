// A row's results over one range of keys, for the combine kernel: first (row_max, sum, visible, 0), then o undivided. `n` is the
// number of keys it sees in all ranges.
@group(0) @binding(11) var<storage, read_write> partials: array<vec4<f32>>; // [batch, q_heads, q_len, splits, 1 + v_dim / 4]

fn partial_base(batch: u32, head: u32, i: u32, split: u32) -> u32 {
    return (((batch * params.q_heads + head) * params.q_len + i) * params.splits + split) * (1u + O_CHUNKS);
}

fn finish_o(batch: u32, head: u32, i: u32, split: u32, c: u32, value: vec4<f32>, n: f32, sum: f32) {
    partials[partial_base(batch, head, i, split) + 1u + c] = value;
}

fn finish_row(batch: u32, head: u32, i: u32, split: u32, row_max: f32, n: f32, sum: f32) {
    partials[partial_base(batch, head, i, split)] = vec4(row_max, sum, n, 0.0);
}
