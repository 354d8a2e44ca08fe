// Rows are those of class weights, to which broken rows add nothing.
fn is_broken(row: u32) -> bool {
    return false;
}
