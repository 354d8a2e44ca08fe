// Weights that are products of what the rows and what they see hold.
fn weigh(j: u32, last: u32, k_base: u32) -> PerScore {
    return divided(scores(j, last, k_base), j, last);
}

fn queries(part: u32, c: u32) -> mat4x4<f32> {
    return mapped_rows(c);
}

fn key_chunk(base: u32, c: u32) -> vec4<f32> {
    return mapped(c, load_k(base, c));
}

fn add_pairs(weights: PerScore, j: u32, last: u32, edge: bool, v_base: u32) {
    add_values(weights, j, last, edge, v_base);
}

fn value_chunk(base: u32, c: u32) -> vec4<f32> {
    return value_of(load_v(base, min(chunk_of(c), O_CHUNKS - 1u)));
}
