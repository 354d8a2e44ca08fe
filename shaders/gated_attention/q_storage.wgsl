// Where q stays during the walk over the keys: in storage, mapped and scaled again at each visit. For compilers that take
// minutes over large arrays.
fn keep_q_chunk(c: u32, q4: mat4x4<f32>) {
}

fn q_chunk(c: u32) -> mat4x4<f32> {
    return scaled_queries(c, queries(c));
}
