// Optional operand: the gradient of p, two pairs of columns.
@group(0) @binding(7) var<storage, read> dp: array<f32>; // [rows, columns]

fn load_dp(columns: vec4<u32>, inside: vec4<bool>) -> vec4<f32> {
    let at = vec4(params.dp_start + row * params.dp_rows) + columns;
    var four = vec4(dp[at.x], 0.0, 0.0, 0.0);
    if (inside.y) { four.y = dp[at.y]; }
    if (inside.z) { four.z = dp[at.z]; }
    if (inside.w) { four.w = dp[at.w]; }
    return four;
}
