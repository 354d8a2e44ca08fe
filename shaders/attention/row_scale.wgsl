// Optional operand: one scale per row.
@group(0) @binding(10) var<storage, read> row_scale: array<f32>; // [batch, q_heads, q_len]

fn row_scale_of(rows: Rows) -> vec4<f32> {
    let base = params.row_scale_start + rows.batch * params.row_scale_batch + rows.head * params.row_scale_head;
    let at = base + rows.row * params.row_scale_row;
    return vec4(row_scale[at.x], row_scale[at.y], row_scale[at.z], row_scale[at.w]);
}
