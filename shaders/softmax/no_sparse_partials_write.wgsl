// No dispatch follows.
fn store_partial(own: Sums) {
}
