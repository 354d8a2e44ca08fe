// Optional output: the gradient of x, four columns that lie together.
@group(0) @binding(4) var<storage, read_write> dx: array<Elem>; // [rows, columns]

fn store_dx(columns: vec4<u32>, value: vec4<f32>, inside: vec4<bool>) {
    dx[(params.dx_start + row * params.dx_rows + columns.x) / 4u] = value;
}
