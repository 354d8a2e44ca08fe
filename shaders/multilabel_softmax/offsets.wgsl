// One list of all rows, and where each row's begin.
@group(0) @binding(2) var<storage, read> label_list: array<u32>; // [listed]
@group(0) @binding(3) var<storage, read> label_offsets: array<u32>; // [rows + 1]

// Where a row's list begins and ends; one that ends before it begins is none.
fn list_of(row: u32) -> vec2<u32> {
    let at = params.label_offsets_start + row;
    let list = vec2(label_offsets[at], label_offsets[at + 1u]);
    return select(list + vec2(params.label_list_start), vec2(1u, 0u), list.y > params.listed || list.x > list.y);
}

fn label_at(at: u32) -> u32 {
    return label_list[at];
}
