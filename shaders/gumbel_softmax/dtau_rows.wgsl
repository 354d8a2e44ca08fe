// Optional gradient: dtau of each row.
@group(0) @binding(7) var<storage, read_write> dtau_rows: array<f32>; // [rows]

fn put_dtau(row: u32, value: f32) {
    dtau_rows[params.dtau_rows_start + row * params.dtau_rows_stride] = value;
}
