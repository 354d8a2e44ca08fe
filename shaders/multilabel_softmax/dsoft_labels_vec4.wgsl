// Optional output: the gradient of soft labels, four of a row that starts at a multiple of four.
@group(0) @binding(7) var<storage, read_write> dsoft_labels: array<vec4<f32>>; // [rows, classes]

fn store_dsoft_labels(row: u32, chunk: u32, value: vec4<f32>) {
    dsoft_labels[(params.dsoft_labels_start + row * params.dsoft_labels_rows) / 4u + chunk] = value;
}
