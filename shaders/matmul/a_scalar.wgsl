// Four rows (inner) of a at four k, wherever they lie. Zero past the last k; past the last row, some row.
@group(0) @binding(1) var<storage, read> a: array<f32>; // [batch, heads, m, k] or [batch, heads, k, m]

fn a_block(base: u32, row: u32, k: u32) -> mat4x4<f32> {
    let rows = vec4(base) + min(vec4(row) + vec4(0u, 1u, 2u, 3u), vec4(params.m - 1u)) * params.a_m;
    return mat4x4(four_rows(rows, k), four_rows(rows, k + 1u), four_rows(rows, k + 2u), four_rows(rows, k + 3u));
}

fn four_rows(rows: vec4<u32>, k: u32) -> vec4<f32> {
    let at = rows + min(k, params.k - 1u) * params.a_k;
    return select(vec4(0.0), vec4(a[at.x], a[at.y], a[at.z], a[at.w]), k < params.k);
}

// The same in parts, for a walk along k: from where a block is loaded, the last place for each load, what a step of `depth` k adds, the
// loads, and what makes a block of them. Past the last k, some k.
fn a_places(base: u32, row: u32, k: u32) -> vec4<u32> {
    return vec4(base + k * params.a_k) + min(vec4(row) + vec4(0u, 1u, 2u, 3u), vec4(params.m - 1u)) * params.a_m;
}

fn a_last(base: u32, row: u32) -> vec4<u32> {
    return a_places(base, row, params.k - 1u);
}

fn a_advance(depth: u32) -> u32 {
    return depth * params.a_k;
}

fn a_load(places: vec4<u32>, last: vec4<u32>) -> mat4x4<f32> {
    var block: mat4x4<f32>;
    for (var d = 0u; d < 4u; d++) { // unroll
        let at = min(places + d * params.a_k, last);
        block[d] = vec4(a[at.x], a[at.y], a[at.z], a[at.w]);
    }
    return block;
}

fn a_arranged(loads: mat4x4<f32>) -> mat4x4<f32> {
    return loads;
}
