// The linear part of mixed chunks: q_lin times the sum of the states k_lin^T v of other chunks, added to o.
@group(0) @binding(7) var<storage, read> states: array<vec4<f32>>; // [batch, kv_heads, chunk, 4 * KEY_CHUNKS, state_chunks]

fn add_other_chunks(kv_head: u32, chunk: u32, len: u32) {
    // Causal: the sum over the chunks before this one; else the one sum of all, which stands in the first place.
    let tokens = select(len, min(chunk * params.chunk, len), params.chunk_causal == 1u);
    if (tokens == 0u) {
        return;
    }
    let place = select(0u, chunk, params.chunk_causal == 1u);
    let divisor = select(params.linear_divisor, f32(tokens), params.linear_tokens == 1u);
    let state_chunks = params.state_chunks;
    let state_index = (batch * params.kv_heads + kv_head) * params.chunks + place;
    let state = state_index * 4u * KEY_CHUNKS * state_chunks + v_first - params.state_first;
    let base = vec4(params.q_lin_start + batch * params.q_lin_batch + head * params.q_lin_head) + row * params.q_lin_row;

    // Eight dims of q_lin a step; past an odd number of chunks the last is taken again, times 0.
    for (var c = 0u; c < KEY_CHUNKS; c += 2u) {
        let next = min(c + 1u, KEY_CHUNKS - 1u);
        let p = linear_queries(base, c, 1.0 / divisor);
        let p_next = linear_queries(base, next, select(0.0, 1.0 / divisor, next > c));
        let s0 = state + 4u * c * state_chunks;
        let s1 = state + 4u * next * state_chunks;
        for (var b = 0u; b < V_BLOCK; b++) {
            var o4 = o_block[b];
            o4 = add_product(o4, p[0], states[s0 + b]);
            o4 = add_product(o4, p[1], states[s0 + state_chunks + b]);
            o4 = add_product(o4, p[2], states[s0 + 2u * state_chunks + b]);
            o4 = add_product(o4, p[3], states[s0 + 3u * state_chunks + b]);
            o4 = add_product(o4, p_next[0], states[s1 + b]);
            o4 = add_product(o4, p_next[1], states[s1 + state_chunks + b]);
            o4 = add_product(o4, p_next[2], states[s1 + 2u * state_chunks + b]);
            o4 = add_product(o4, p_next[3], states[s1 + 3u * state_chunks + b]);
            o_block[b] = o4;
        }
    }
}

// Four dims of the four rows of q_lin, times `factor`; column d is dim d.
fn linear_queries(base: vec4<u32>, chunk: u32, factor: f32) -> mat4x4<f32> {
    let gamma = affine_gamma(Q_LIN_MAP, head, chunk);
    let beta = affine_beta(Q_LIN_MAP, head, chunk);
    return factor * transpose(mat4x4(
        load_q_lin(base.x, chunk) * gamma + beta,
        load_q_lin(base.y, chunk) * gamma + beta,
        load_q_lin(base.z, chunk) * gamma + beta,
        load_q_lin(base.w, chunk) * gamma + beta,
    ));
}
