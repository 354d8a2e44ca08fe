// Labels: soft ones, four of a row that starts at a multiple of four.
@group(0) @binding(2) var<storage, read> soft_labels: array<Elem>; // [rows, classes]

fn load_labels(row: u32, chunk: u32) -> vec4<f32> {
    return soft_labels[(params.soft_labels_start + row * params.soft_labels_rows) / 4u + chunk];
}

fn labels_are_broken(row: u32) -> bool {
    return false;
}
