// Optional output: the gradient of the scores, four of a row that starts at a multiple of four.
@group(0) @binding(6) var<storage, read_write> dscores: array<vec4<f32>>; // [rows, classes]

fn store_dscores(row: u32, chunk: u32, value: vec4<f32>) {
    dscores[(params.dscores_start + row * params.dscores_rows) / 4u + chunk] = value;
}
