// Optional operand: one scale per row.
@group(0) @binding(10) var<storage, read> row_scale: array<f32>; // [batch, q_heads, q_len]

fn row_scale_of(batch: u32, head: u32, row: vec4<u32>) -> vec4<f32> {
    let base = params.row_scale_start + batch * params.row_scale_batch + head * params.row_scale_head;
    let at = vec4(base) + row * params.row_scale_row;
    return vec4(row_scale[at.x], row_scale[at.y], row_scale[at.z], row_scale[at.w]);
}
