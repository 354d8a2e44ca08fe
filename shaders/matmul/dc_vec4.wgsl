// Optional operand: the gradient of c, whose rows start at multiples of four.
@group(0) @binding(6) var<storage, read> dc: array<vec4<f32>>; // [batch, heads, m, n]

fn dc_at(batch: u32, head: u32, row: u32, column: u32) -> vec4<f32> {
    let base = params.dc_start + batch * params.dc_batch + head * params.dc_head + row * params.dc_m;
    return dc[(base + column) / 4u];
}
