// Four dims of a row, with `filler` past the row's end.
fn within(chunk: u32, x: vec4<f32>, filler: f32) -> vec4<f32> {
    if (HEAD_DIM % 4u == 0u) {
        return x;
    }
    return select(vec4(filler), x, vec4(4u * chunk) + vec4(0u, 1u, 2u, 3u) < vec4(HEAD_DIM));
}
