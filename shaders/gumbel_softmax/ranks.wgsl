// What top_k.wgsl keeps the largest of: logits. The last goes to the state of its row.
struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32,
    columns: u32, // classes
    top_k: u32,
    column_bytes: u32, // that tell the row's columns apart
    splits: u32, // of a row
    split_chunks: u32, // fours of columns
    round: u32, // where a row is split
    logits_start: u32, // starts and strides in elements
    logits_rows: u32,
    mask_start: u32, // bytes
    mask_rows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> row_state: array<vec4<u32>>; // [rows, 2]

// What is no number makes the row NaN where scores are found.
fn ranks(row: u32, chunk: u32) -> Ranks {
    let bits = bitcast<vec4<u32>>(load_logits(params.logits_start + row * params.logits_rows, chunk));
    let columns = vec4(4u * chunk) + vec4(0u, 1u, 2u, 3u);
    let visible = (columns < vec4(params.columns)) & mask4(row, chunk) & (bits != vec4(0xff800000u));
    return Ranks(visible, order4(bits), false);
}

fn store_last(row: u32, last: vec2<u32>) {
    let state = row_state[2u * row + 1u];
    row_state[2u * row + 1u] = vec4(state.xy, last);
}
