// Optional operand, off: a row is known by its place.
fn id_of(row: u32) -> u32 {
    return params.first_row + row;
}
