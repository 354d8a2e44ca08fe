// The linear part of mixed chunks: what a value adds to other chunks flows back to it, k_lin dM.
@group(0) @binding(7) var<storage, read_write> states: array<vec4<f32>>; // [batch, kv_heads, chunk, 4 * KEY_CHUNKS, state_chunks]

fn add_other_chunks() {
    // Causal: the sum over the chunks behind this one; else the one sum of all, which stands in the first place.
    let place = (owned.batch * params.own_heads + owned.head) * params.chunks + select(0u, owned.chunk, params.chunk_causal == 1u);
    let state = place * 4u * KEY_CHUNKS * params.state_chunks + block_first - params.state_first;
    add_state(state, 1.0);
}

// Four dims of four rows of k_lin, 0 where no row sees the key.
fn linear_rows(part: u32, c: u32) -> mat4x4<f32> {
    let rows = own_rows(part);
    let at = vec4(params.q_lin_start + owned.batch * params.q_lin_batch + owned.head * params.q_lin_head) + rows * params.q_lin_row;
    return transpose(mat4x4(
        select(vec4(0.0), affine(load_q_lin(at.x, c), K_LIN_MAP, owned.head, c), rows.x < owned.kv_len),
        select(vec4(0.0), affine(load_q_lin(at.y, c), K_LIN_MAP, owned.head, c), rows.y < owned.kv_len),
        select(vec4(0.0), affine(load_q_lin(at.z, c), K_LIN_MAP, owned.head, c), rows.z < owned.kv_len),
        select(vec4(0.0), affine(load_q_lin(at.w, c), K_LIN_MAP, owned.head, c), rows.w < owned.kv_len),
    ));
}
