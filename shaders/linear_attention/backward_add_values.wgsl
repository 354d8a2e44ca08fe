// What weights add up, as it is.
fn add_pairs(weights: PerScore, j: u32, last: u32, edge: bool, v_base: u32) {
    add_values(weights, j, last, edge, v_base);
}

fn value_chunk(base: u32, c: u32) -> vec4<f32> {
    return load_v(base, min(chunk_of(c), O_CHUNKS - 1u));
}
