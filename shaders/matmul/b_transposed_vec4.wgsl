// Four columns (inner) of b at four k, where neighbours along k are neighbours in memory and come in fours. Zero past the
// last k; past the last column, some column.
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>; // [batch, heads, n, k]

fn b_block(base: u32, k: u32, column: u32) -> mat4x4<f32> {
    if (k >= params.k) {
        return mat4x4<f32>();
    }
    let columns = vec4(base + k) + min(vec4(column) + vec4(0u, 1u, 2u, 3u), vec4(params.n - 1u)) * params.b_n;
    return transpose(mat4x4(b[columns.x / 4u], b[columns.y / 4u], b[columns.z / 4u], b[columns.w / 4u]));
}
