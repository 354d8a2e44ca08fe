// p, two pairs of columns.
@group(0) @binding(4) var<storage, read_write> p: array<f32>; // [rows, columns]

fn store_p(columns: vec4<u32>, value: vec4<f32>, inside: vec4<bool>) {
    let at = vec4(params.p_start + row * params.p_rows) + columns;
    p[at.x] = value.x;
    if (inside.y) { p[at.y] = value.y; }
    if (inside.z) { p[at.z] = value.z; }
    if (inside.w) { p[at.w] = value.w; }
}
