// Results of a range of what is walked, for a kernel that adds up ranges.
@group(0) @binding(11) var<storage, read_write> partials: array<vec4<f32>>; // [splits, batch, own_heads, own_len, dims / 4]

fn finish_row(row: u32, split: u32, chunk: u32, value: vec4<f32>) {
    let place = split * params.partial_rows + (owned.batch * params.own_heads + owned.head) * params.own_len + row;
    partials[params.partial_first + place * RESULT_CHUNKS + chunk] = value;
}
