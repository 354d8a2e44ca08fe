// Four scores of a row that starts at a multiple of four.
@group(0) @binding(1) var<storage, read> scores: array<Elem>; // [rows, classes]

fn load_scores(row: u32, chunk: u32) -> vec4<f32> {
    return scores[(params.scores_start + row * params.scores_rows) / 4u + chunk];
}
