// Optional output: the gradient of soft labels, four of a row that starts at any element; nothing past the row's end.
@group(0) @binding(7) var<storage, read_write> dsoft_labels: array<f32>; // [rows, classes]

fn store_dsoft_labels(row: u32, chunk: u32, value: vec4<f32>) {
    let c = 4u * chunk;
    let at = params.dsoft_labels_start + row * params.dsoft_labels_rows + c;
    dsoft_labels[at] = value.x;
    if (c + 1u < params.classes) { dsoft_labels[at + 1u] = value.y; }
    if (c + 2u < params.classes) { dsoft_labels[at + 2u] = value.z; }
    if (c + 3u < params.classes) { dsoft_labels[at + 3u] = value.w; }
}
