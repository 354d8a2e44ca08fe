// Rows are those of features, which may be broken.
fn is_broken(row: u32) -> bool {
    return row_gradients[params.first_row + row].kind == BROKEN;
}
