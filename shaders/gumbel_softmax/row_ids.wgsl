// Optional operand: what a row's noise knows it by.
@group(0) @binding(5) var<storage, read> row_ids: array<u32>; // [rows]

fn id_of(row: u32) -> u32 {
    return row_ids[params.row_ids_start + row * params.row_ids_stride];
}
