// A row's optional outputs.
fn store_statistics(batch: u32, head: u32, i: u32, row_max: f32, sum: f32, weighted: f32) {
    store_lse(batch, head, i, row_max, sum);
    store_entropy(batch, head, i, sum, weighted);
}
