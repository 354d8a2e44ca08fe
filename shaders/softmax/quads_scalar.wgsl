// Two pairs of columns, which may start anywhere: those of neighbouring invocations lie side by side, and no two invocations
// share a word of 16-bit numbers.
fn columns_of(first: u32) -> vec4<u32> {
    return vec4(first + 2u * lane) + vec4(0u, 1u, 2u * LANES, 2u * LANES + 1u);
}

fn load_x(columns: vec4<u32>, inside: vec4<bool>) -> vec4<f32> {
    let at = vec4(params.x_start + row * params.x_rows) + columns;
    var four = vec4(x[at.x], 0.0, 0.0, 0.0);
    if (inside.y) { four.y = x[at.y]; }
    if (inside.z) { four.z = x[at.z]; }
    if (inside.w) { four.w = x[at.w]; }
    return four;
}
