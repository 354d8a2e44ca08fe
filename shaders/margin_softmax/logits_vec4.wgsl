// Optional output: logits without a margin, four of a row that starts at a multiple of four and has a multiple of four.
@group(0) @binding(7) var<storage, read_write> logits: array<vec4<f32>>; // [rows, classes]

fn store_logits(row: u32, first: u32, four: vec4<f32>, inside: vec4<bool>) {
    logits[(params.logits_start + row * params.logits_rows + first) / 4u] = four;
}
