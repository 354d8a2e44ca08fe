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

// The same in parts, for a walk along k: from where a block is loaded, the last place for each load, what a step of `depth` k adds, the
// loads, and what makes a block of them. Past the last k, some k.
fn a_places(base: u32, row: u32, k: u32) -> vec4<u32> {
    return (vec4(base + k) + min(vec4(row) + vec4(0u, 1u, 2u, 3u), vec4(params.m - 1u)) * params.a_m) / 4u;
}

fn a_last(base: u32, row: u32) -> vec4<u32> {
    return a_places(base, row, params.k - 4u);
}

fn a_advance(depth: u32) -> u32 {
    return depth / 4u;
}

fn a_load(places: vec4<u32>, last: vec4<u32>) -> mat4x4<f32> {
    let at = min(places, last);
    return mat4x4(a[at.x], a[at.y], a[at.z], a[at.w]);
}

fn a_arranged(loads: mat4x4<f32>) -> mat4x4<f32> {
    return transpose(loads);
}
