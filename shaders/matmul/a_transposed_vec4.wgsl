// Four rows (inner) of a at four k, where neighbours along m are neighbours in memory and come in fours. Zero past the last
// k; past the last row, some row.
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>; // [batch, heads, k, m]

fn a_block(base: u32, row: u32, k: u32) -> mat4x4<f32> {
    let first = base + min(row, params.m - 4u);
    return mat4x4(four_rows(first, k), four_rows(first, k + 1u), four_rows(first, k + 2u), four_rows(first, k + 3u));
}

fn four_rows(first: u32, k: u32) -> vec4<f32> {
    return select(vec4(0.0), a[(first + min(k, params.k - 1u) * params.a_k) / 4u], k < params.k);
}
