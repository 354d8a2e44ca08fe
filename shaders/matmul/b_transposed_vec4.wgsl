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

// The same in parts, for a walk along k: from where a block is loaded, the last place for each load, what a step of `depth` k adds, the
// loads, and what makes a block of them. Past the last k, some k.
fn b_places(base: u32, k: u32, column: u32) -> vec4<u32> {
    return (vec4(base + k) + min(vec4(column) + vec4(0u, 1u, 2u, 3u), vec4(params.n - 1u)) * params.b_n) / 4u;
}

fn b_last(base: u32, column: u32) -> vec4<u32> {
    return b_places(base, params.k - 4u, column);
}

fn b_advance(depth: u32) -> u32 {
    return depth / 4u;
}

fn b_load(places: vec4<u32>, last: vec4<u32>) -> mat4x4<f32> {
    let at = min(places, last);
    return mat4x4(b[at.x], b[at.y], b[at.z], b[at.w]);
}

fn b_arranged(loads: mat4x4<f32>) -> mat4x4<f32> {
    return transpose(loads);
}
