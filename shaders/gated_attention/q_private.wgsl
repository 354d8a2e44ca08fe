// Where q stays during the walk over the keys: with the invocation.
var<private> q_block: array<mat4x4<f32>, KEY_CHUNKS>;

fn keep_q_chunk(c: u32, q4: mat4x4<f32>) {
    q_block[c] = scaled_queries(c, q4);
}

fn q_chunk(c: u32) -> mat4x4<f32> {
    return q_block[c];
}
