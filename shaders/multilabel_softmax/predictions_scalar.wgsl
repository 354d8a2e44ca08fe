// Optional output: the classes that are predicted, four of a row that starts at any element; nothing past the row's end.
@group(0) @binding(5) var<storage, read_write> predictions: array<f32>; // [rows, classes]

fn store_predictions(row: u32, chunk: u32, value: vec4<f32>) {
    let c = 4u * chunk;
    let at = params.predictions_start + row * params.predictions_rows + c;
    predictions[at] = value.x;
    if (c + 1u < params.classes) { predictions[at + 1u] = value.y; }
    if (c + 2u < params.classes) { predictions[at + 2u] = value.z; }
    if (c + 3u < params.classes) { predictions[at + 3u] = value.w; }
}
