// Optional output: how probable classes are, four of a row that starts at any element; nothing past the row's end.
@group(0) @binding(6) var<storage, read_write> probabilities: array<f32>; // [rows, classes]

fn store_probabilities(row: u32, chunk: u32, value: vec4<f32>) {
    let c = 4u * chunk;
    let at = params.probabilities_start + row * params.probabilities_rows + c;
    probabilities[at] = value.x;
    if (c + 1u < params.classes) { probabilities[at + 1u] = value.y; }
    if (c + 2u < params.classes) { probabilities[at + 2u] = value.z; }
    if (c + 3u < params.classes) { probabilities[at + 3u] = value.w; }
}
