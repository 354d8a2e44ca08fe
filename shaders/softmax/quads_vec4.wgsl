// Four columns that lie together, from a multiple of four: those of neighbouring invocations lie side by side.
fn columns_of(first: u32) -> vec4<u32> {
    return vec4(first + 4u * lane) + vec4(0u, 1u, 2u, 3u);
}

fn load_x(columns: vec4<u32>) -> vec4<f32> {
    return x[(params.x_start + row * params.x_rows + columns.x) / 4u];
}
