// Four scores of a row that starts at any element; 0 past the row's end, whatever lies there.
@group(0) @binding(1) var<storage, read> scores: array<Elem>; // [rows, classes]

fn load_scores(row: u32, chunk: u32) -> vec4<f32> {
    let c = 4u * chunk;
    let at = params.scores_start + row * params.scores_rows + c;
    var x = vec4(scores[at], 0.0, 0.0, 0.0);
    if (c + 1u < params.classes) { x.y = scores[at + 1u]; }
    if (c + 2u < params.classes) { x.z = scores[at + 2u]; }
    if (c + 3u < params.classes) { x.w = scores[at + 3u]; }
    return x;
}
