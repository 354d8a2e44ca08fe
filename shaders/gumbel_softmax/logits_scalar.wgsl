// Four logits of a row that starts at any element; 0 past the row's end.
fn load_logits(base: u32, chunk: u32) -> vec4<f32> {
    let c = 4u * chunk;
    var x = vec4(logits[base + c], 0.0, 0.0, 0.0);
    if (c + 1u < params.columns) { x.y = logits[base + c + 1u]; }
    if (c + 2u < params.columns) { x.z = logits[base + c + 2u]; }
    if (c + 3u < params.columns) { x.w = logits[base + c + 3u]; }
    return x;
}
