// The gradient of a loss with respect to y, four columns of a row that starts at a multiple of four.
@group(0) @binding(5) var<storage, read> dy: array<vec4<f32>>; // [rows, columns]

fn load_dy4(row: Row, chunk: u32, see: vec4<bool>) -> vec4<f32> {
    return select(vec4(0.0), dy[(params.dy_start + row.index * params.dy_rows) / 4u + chunk], see);
}
