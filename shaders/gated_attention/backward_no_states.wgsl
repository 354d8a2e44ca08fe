// The linear part of mixed chunks, off.
fn add_other_chunks() {
}
