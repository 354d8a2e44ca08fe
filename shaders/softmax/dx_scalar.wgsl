// Optional output: the gradient of x, two pairs of columns.
@group(0) @binding(4) var<storage, read_write> dx: array<f32>; // [rows, columns]

fn store_dx(columns: vec4<u32>, value: vec4<f32>, inside: vec4<bool>) {
    let at = vec4(params.dx_start + row * params.dx_rows) + columns;
    dx[at.x] = value.x;
    if (inside.y) { dx[at.y] = value.y; }
    if (inside.z) { dx[at.z] = value.z; }
    if (inside.w) { dx[at.w] = value.w; }
}
