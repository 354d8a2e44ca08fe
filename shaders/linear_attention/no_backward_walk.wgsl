// Full mode: the state holds all pairs.
fn walk_chunk(batch: u32, first_head: u32, at: vec4<u32>) {}
