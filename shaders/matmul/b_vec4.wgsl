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

// The same in parts, for a walk along k: from where a block is loaded, the last place for each load, what a step of `depth` k adds, the
// loads, and what makes a block of them. Past the last k, some k.
fn b_places(base: u32, k: u32, column: u32) -> vec4<u32> {
    return (vec4(base + min(column, params.n - 4u)) + (vec4(k) + vec4(0u, 1u, 2u, 3u)) * params.b_k) / 4u;
}

fn b_last(base: u32, column: u32) -> vec4<u32> {
    return vec4((base + min(column, params.n - 4u) + (params.k - 1u) * params.b_k) / 4u);
}

fn b_advance(depth: u32) -> u32 {
    return depth * params.b_k / 4u;
}

fn b_load(places: vec4<u32>, last: vec4<u32>) -> mat4x4<f32> {
    let at = min(places, last);
    return mat4x4(b[at.x], b[at.y], b[at.z], b[at.w]);
}

fn b_arranged(loads: mat4x4<f32>) -> mat4x4<f32> {
    return loads;
}
