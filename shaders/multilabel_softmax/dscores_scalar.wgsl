// Optional output: the gradient of the scores, four of a row that starts at any element; nothing past the row's end.
@group(0) @binding(6) var<storage, read_write> dscores: array<f32>; // [rows, classes]

fn store_dscores(row: u32, chunk: u32, value: vec4<f32>) {
    let c = 4u * chunk;
    let at = params.dscores_start + row * params.dscores_rows + c;
    dscores[at] = value.x;
    if (c + 1u < params.classes) { dscores[at + 1u] = value.y; }
    if (c + 2u < params.classes) { dscores[at + 2u] = value.z; }
    if (c + 3u < params.classes) { dscores[at + 3u] = value.w; }
}
