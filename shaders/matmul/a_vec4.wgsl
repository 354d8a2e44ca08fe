// Four rows (inner) of a at four k, where neighbours along k are neighbours in memory and come in fours. Zero past the last
// k; past the last row, some row.
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>; // [batch, heads, m, k]

fn a_block(base: u32, row: u32, k: u32) -> mat4x4<f32> {
    if (k >= params.k) {
        return mat4x4<f32>();
    }
    let rows = vec4(base + k) + min(vec4(row) + vec4(0u, 1u, 2u, 3u), vec4(params.m - 1u)) * params.a_m;
    return transpose(mat4x4(a[rows.x / 4u], a[rows.y / 4u], a[rows.z / 4u], a[rows.w / 4u]));
}
