// Rows are those of listed classes, each of which lies in this tensor or in another one.
fn row_of(row: u32) -> u32 {
    let own_class = number_of(row / params.centres) - params.tensor_first;
    return select(ELSEWHERE, own_class * params.centres + row % params.centres, own_class < params.tensor_classes);
}
