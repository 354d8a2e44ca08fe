// What a row's noise and weights depend on besides its logits.
struct Row {
    index: u32,
    seed: vec2<u32>,
    id: u32, // row id + offset
    stream: u32,
    step: u32,
    tau: f32, // 1 where it is no number to divide by
    bad: u32, // NAN there, else 0
    threshold: u32, // order of the lowest logit that is kept
    last: u32, // the last column of that logit that is kept
}

// Which of four columns the row has.
fn in_row(chunk: u32) -> vec4<bool> {
    return vec4(4u * chunk) + vec4(0u, 1u, 2u, 3u) < vec4(params.columns);
}
