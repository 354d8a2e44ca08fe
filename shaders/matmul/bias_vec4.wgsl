// Optional operand: added to the product; rows start at multiples of four.
@group(0) @binding(4) var<storage, read> bias: array<vec4<f32>>; // [batch, heads, m, n]

fn bias_at(batch: u32, head: u32, row: u32, column: u32) -> vec4<f32> {
    let base = params.bias_start + batch * params.bias_batch + head * params.bias_head + row * params.bias_m;
    return bias[(base + column) / 4u];
}
