// Four columns of y, whose rows start at multiples of four.
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>; // [rows, columns]

fn store_y(row: u32, chunk: u32, value: vec4<f32>) {
    y[(params.y_start + row * params.y_rows) / 4u + chunk] = value;
}
