// Optional operand: a margin for each row.
@group(0) @binding(5) var<storage, read> row_margins: array<f32>; // [rows]

fn margin_of(row: u32, own_class: u32) -> f32 {
    return row_margins[params.row_margins_start + row * params.row_margins_stride];
}
