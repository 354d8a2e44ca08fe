// Optional operand: the gradient of p, four columns that lie together.
@group(0) @binding(7) var<storage, read> dp: array<Elem>; // [rows, columns]

fn load_dp(columns: vec4<u32>) -> vec4<f32> {
    return dp[(params.dp_start + row * params.dp_rows + columns.x) / 4u];
}
