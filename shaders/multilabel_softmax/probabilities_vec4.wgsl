// Optional output: how probable classes are, four of a row that starts at a multiple of four.
@group(0) @binding(6) var<storage, read_write> probabilities: array<vec4<f32>>; // [rows, classes]

fn store_probabilities(row: u32, chunk: u32, value: vec4<f32>) {
    probabilities[(params.probabilities_start + row * params.probabilities_rows) / 4u + chunk] = value;
}
