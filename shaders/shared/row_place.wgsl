// Where a row of [batch, heads, len] stands, by its number.
struct RowPlace {
    batch: u32,
    head: u32,
    i: u32, // token
}

fn row_place(row: u32) -> RowPlace {
    return RowPlace(row / params.len / params.heads, (row / params.len) % params.heads, row % params.len);
}
