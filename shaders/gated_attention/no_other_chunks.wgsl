// The linear part, off: a row sees no keys but those of the quadratic part.
fn add_other_chunks(kv_head: u32, chunk: u32, len: u32) {
}
