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

// The same in parts, for a walk along k: from where a block is loaded, the last place for each load, what a step of `depth` k adds, the
// loads, and what makes a block of them. Past the last k, some k.
fn a_places(base: u32, row: u32, k: u32) -> vec4<u32> {
    return (vec4(base + min(row, params.m - 4u)) + (vec4(k) + vec4(0u, 1u, 2u, 3u)) * params.a_k) / 4u;
}

fn a_last(base: u32, row: u32) -> vec4<u32> {
    return vec4((base + min(row, params.m - 4u) + (params.k - 1u) * params.a_k) / 4u);
}

fn a_advance(depth: u32) -> u32 {
    return depth * params.a_k / 4u;
}

fn a_load(places: vec4<u32>, last: vec4<u32>) -> mat4x4<f32> {
    let at = min(places, last);
    return mat4x4(a[at.x], a[at.y], a[at.z], a[at.w]);
}

fn a_arranged(loads: mat4x4<f32>) -> mat4x4<f32> {
    return loads;
}
