// Four numbers of a row that starts at any element; 0 past the row's end, whatever lies there.
fn load_four(base: u32, c: u32) -> vec4<f32> {
    var four = vec4(x[base + c], 0.0, 0.0, 0.0);
    if (c + 1u < params.dim) { four.y = x[base + c + 1u]; }
    if (c + 2u < params.dim) { four.z = x[base + c + 2u]; }
    if (c + 3u < params.dim) { four.w = x[base + c + 3u]; }
    return four;
}
