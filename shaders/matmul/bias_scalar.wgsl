// Optional operand: added to the product; past a row's end, its last element.
@group(0) @binding(4) var<storage, read> bias: array<f32>; // [batch, heads, m, n]

fn bias_at(batch: u32, head: u32, row: u32, column: u32) -> vec4<f32> {
    let base = params.bias_start + batch * params.bias_batch + head * params.bias_head + row * params.bias_m;
    let at = vec4(base) + min(vec4(column) + vec4(0u, 1u, 2u, 3u), vec4(params.n - 1u));
    return vec4(bias[at.x], bias[at.y], bias[at.z], bias[at.w]);
}
