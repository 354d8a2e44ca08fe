// Four dims of a part's row that starts at any element; 0 past the row's end.
fn load_part(base: u32, chunk: u32) -> vec4<f32> {
    let c = 4u * chunk;
    var x = vec4(o_parts[base + c], 0.0, 0.0, 0.0);
    if (c + 1u < V_DIM) { x.y = o_parts[base + c + 1u]; }
    if (c + 2u < V_DIM) { x.z = o_parts[base + c + 2u]; }
    if (c + 3u < V_DIM) { x.w = o_parts[base + c + 3u]; }
    return x;
}
