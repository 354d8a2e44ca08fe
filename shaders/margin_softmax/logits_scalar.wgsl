// Optional output: logits without a margin, of four classes those that are inside.
@group(0) @binding(7) var<storage, read_write> logits: array<f32>; // [rows, classes]

fn store_logits(row: u32, first: u32, four: vec4<f32>, inside: vec4<bool>) {
    let at = params.logits_start + row * params.logits_rows + first;
    if (inside.x) { logits[at] = four.x; }
    if (inside.y) { logits[at + 1u] = four.y; }
    if (inside.z) { logits[at + 2u] = four.z; }
    if (inside.w) { logits[at + 3u] = four.w; }
}
