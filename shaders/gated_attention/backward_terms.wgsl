// What the weights of each query have in common, as backward_rows.wgsl has left it: scale, largest score, factor, delta.
@group(0) @binding(12) var<storage, read_write> row_terms: array<vec4<f32>>; // [batch, q_heads, q_len]

fn terms_of(head: u32, i: u32) -> vec4<f32> {
    return row_terms[(owned.batch * params.q_heads + head) * params.q_len + i];
}
