// Four columns (inner) of b at four k, where neighbours along n are neighbours in memory and come in fours. Zero past the
// last k; past the last column, some column.
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>; // [batch, heads, k, n]

fn b_block(base: u32, k: u32, column: u32) -> mat4x4<f32> {
    let first = base + min(column, params.n - 4u);
    return mat4x4(
        four_columns(first, k),
        four_columns(first, k + 1u),
        four_columns(first, k + 2u),
        four_columns(first, k + 3u),
    );
}

fn four_columns(first: u32, k: u32) -> vec4<f32> {
    return select(vec4(0.0), b[(first + min(k, params.k - 1u) * params.b_k) / 4u], k < params.k);
}
