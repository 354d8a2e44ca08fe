// Lists of one width for every row.
@group(0) @binding(2) var<storage, read> label_indices: array<u32>; // [rows, width]

// Where a row's list begins and ends.
fn list_of(row: u32) -> vec2<u32> {
    let begin = params.label_indices_start + row * params.label_indices_rows;
    return vec2(begin, begin + params.width);
}

fn label_at(at: u32) -> u32 {
    return label_indices[at];
}
