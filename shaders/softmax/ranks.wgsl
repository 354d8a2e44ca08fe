// What top_k.wgsl keeps the largest of: scores, whose order is that of x, turned where the scale is below 0. The last goes to what its row
// has of its own.
struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32,
    columns: u32,
    top_k: u32,
    column_bytes: u32, // that tell the row's columns apart
    splits: u32, // of a row
    split_chunks: u32, // fours of columns
    round: u32, // where a row is split
    scale: f32, // of all rows, or its sign
    x_start: u32, // starts and strides in elements
    x_rows: u32,
    mask_start: u32,
    mask_rows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Elem>; // [rows, columns]

var<private> row: u32;
var<private> lane: u32;

fn ranks(own_row: u32, chunk: u32) -> Ranks {
    row = own_row;
    let columns = vec4(4u * chunk) + vec4(0u, 1u, 2u, 3u);
    let at = min(columns, vec4(params.columns - 1u));
    let found = load_x(at);
    let bits = bitcast<vec4<u32>>(found);
    let seen = (columns < vec4(params.columns)) & mask_at(at) & (bits != vec4(0xff800000u));
    let is_nan = (bits & vec4(0x7fffffffu)) > vec4(0x7f800000u);
    return Ranks(seen, scored_order(found), any(seen & is_nan));
}

fn store_last(own_row: u32, last: vec2<u32>) {
    let own = numbers[2u * own_row + 1u];
    numbers[2u * own_row + 1u] = vec4(own.xy, last);
}
