// p, four columns that lie together.
@group(0) @binding(4) var<storage, read_write> p: array<Elem>; // [rows, columns]

fn store_p(columns: vec4<u32>, value: vec4<f32>, inside: vec4<bool>) {
    p[(params.p_start + row * params.p_rows + columns.x) / 4u] = value;
}
