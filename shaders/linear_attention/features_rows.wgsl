// Dims 4c to 4c + 3 of the four rows that start at `base`; 0 past their end.
fn load_rows(base: vec4<u32>, c: u32) -> mat4x4<f32> {
    let rows = mat4x4(
        within(c, load_q(base.x, c), 0.0),
        within(c, load_q(base.y, c), 0.0),
        within(c, load_q(base.z, c), 0.0),
        within(c, load_q(base.w, c), 0.0),
    );
    return transpose(rows) * params.input_scale;
}
