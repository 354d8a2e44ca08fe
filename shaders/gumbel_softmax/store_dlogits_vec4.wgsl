// Four columns of dlogits, whose rows start at multiples of four.
@group(0) @binding(6) var<storage, read_write> dlogits: array<vec4<f32>>; // [rows, columns]

fn store_dlogits(row: u32, chunk: u32, value: vec4<f32>) {
    dlogits[(params.dlogits_start + row * params.dlogits_rows) / 4u + chunk] = value;
}
