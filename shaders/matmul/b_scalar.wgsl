// Four columns (inner) of b at four k, wherever they lie. Zero past the last k; past the last column, some column.
@group(0) @binding(2) var<storage, read> b: array<f32>; // [batch, heads, k, n] or [batch, heads, n, k]

fn b_block(base: u32, k: u32, column: u32) -> mat4x4<f32> {
    let columns = vec4(base) + min(vec4(column) + vec4(0u, 1u, 2u, 3u), vec4(params.n - 1u)) * params.b_n;
    return mat4x4(
        four_columns(columns, k),
        four_columns(columns, k + 1u),
        four_columns(columns, k + 2u),
        four_columns(columns, k + 3u),
    );
}

fn four_columns(columns: vec4<u32>, k: u32) -> vec4<f32> {
    let at = columns + min(k, params.k - 1u) * params.b_k;
    return select(vec4(0.0), vec4(b[at.x], b[at.y], b[at.z], b[at.w]), k < params.k);
}

// The same in parts, for a walk along k: from where a block is loaded, the last place for each load, what a step of `depth` k adds, the
// loads, and what makes a block of them. Past the last k, some k.
fn b_places(base: u32, k: u32, column: u32) -> vec4<u32> {
    return vec4(base + k * params.b_k) + min(vec4(column) + vec4(0u, 1u, 2u, 3u), vec4(params.n - 1u)) * params.b_n;
}

fn b_last(base: u32, column: u32) -> vec4<u32> {
    return b_places(base, params.k - 1u, column);
}

fn b_advance(depth: u32) -> u32 {
    return depth * params.b_k;
}

fn b_load(places: vec4<u32>, last: vec4<u32>) -> mat4x4<f32> {
    var block: mat4x4<f32>;
    for (var d = 0u; d < 4u; d++) { // unroll
        let at = min(places + d * params.b_k, last);
        block[d] = vec4(b[at.x], b[at.y], b[at.z], b[at.w]);
    }
    return block;
}

fn b_arranged(loads: mat4x4<f32>) -> mat4x4<f32> {
    return loads;
}
