// Labels: soft ones, four of a row that starts at any element; 0 past the row's end, whatever lies there.
@group(0) @binding(2) var<storage, read> soft_labels: array<Elem>; // [rows, classes]

fn load_labels(row: u32, chunk: u32) -> vec4<f32> {
    let c = 4u * chunk;
    let at = params.soft_labels_start + row * params.soft_labels_rows + c;
    var x = vec4(soft_labels[at], 0.0, 0.0, 0.0);
    if (c + 1u < params.classes) { x.y = soft_labels[at + 1u]; }
    if (c + 2u < params.classes) { x.z = soft_labels[at + 2u]; }
    if (c + 3u < params.classes) { x.w = soft_labels[at + 3u]; }
    return x;
}

fn labels_are_broken(row: u32) -> bool {
    return false;
}
