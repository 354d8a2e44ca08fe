// Optional output: the classes that are predicted, four of a row that starts at a multiple of four.
@group(0) @binding(5) var<storage, read_write> predictions: array<vec4<f32>>; // [rows, classes]

fn store_predictions(row: u32, chunk: u32, value: vec4<f32>) {
    predictions[(params.predictions_start + row * params.predictions_rows) / 4u + chunk] = value;
}
