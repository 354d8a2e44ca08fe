// Four columns of y, whose rows start at any element; nothing past a row's end.
@group(0) @binding(5) var<storage, read_write> y: array<f32>; // [rows, columns]

fn store_y(row: u32, chunk: u32, value: vec4<f32>) {
    let c = 4u * chunk;
    let at = params.y_start + row * params.y_rows + c;
    y[at] = value.x;
    if (c + 1u < params.columns) { y[at + 1u] = value.y; }
    if (c + 2u < params.columns) { y[at + 2u] = value.z; }
    if (c + 3u < params.columns) { y[at + 3u] = value.w; }
}
