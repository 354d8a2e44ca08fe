// Optional operand: the gradient of c; past a row's end, its last element.
@group(0) @binding(6) var<storage, read> dc: array<f32>; // [batch, heads, m, n]

fn dc_at(batch: u32, head: u32, row: u32, column: u32) -> vec4<f32> {
    let base = params.dc_start + batch * params.dc_batch + head * params.dc_head + row * params.dc_m;
    let at = vec4(base) + min(vec4(column) + vec4(0u, 1u, 2u, 3u), vec4(params.n - 1u));
    return vec4(dc[at.x], dc[at.y], dc[at.z], dc[at.w]);
}
