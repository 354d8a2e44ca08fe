// Four dims of a part's row that starts at element `base`, which is a multiple of four.
fn load_part(base: u32, chunk: u32) -> vec4<f32> {
    return o_parts[base / 4u + chunk];
}
