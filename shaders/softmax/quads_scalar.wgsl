// Two pairs of columns, which may start anywhere: those of neighbouring invocations lie side by side, and no two invocations
// share a word of 16-bit numbers.
fn columns_of(first: u32) -> vec4<u32> {
    return vec4(first + 2u * lane) + vec4(0u, 1u, 2u * LANES, 2u * LANES + 1u);
}

fn load_x(columns: vec4<u32>) -> vec4<f32> {
    let at = vec4(params.x_start + row * params.x_rows) + columns;
    return vec4(x[at.x], x[at.y], x[at.z], x[at.w]);
}
