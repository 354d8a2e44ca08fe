// Optional operand: the gradient of p, two pairs of columns.
@group(0) @binding(7) var<storage, read> dp: array<f32>; // [rows, columns]

fn load_dp(columns: vec4<u32>) -> vec4<f32> {
    let at = vec4(params.dp_start + row * params.dp_rows) + columns;
    return vec4(dp[at.x], dp[at.y], dp[at.z], dp[at.w]);
}
