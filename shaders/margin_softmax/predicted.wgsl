// Optional output: the class of the largest cosine, of equals the first; none where a cosine is NaN.
@group(0) @binding(7) var<storage, read_write> bests: array<vec2<u32>>; // [splits, rows]: the cosine, f32, and its class
@group(0) @binding(8) var<storage, read_write> predicted: array<u32>; // [rows]

fn store_predicted(row: u32, broken: bool) {
    var best = bests[row];
    for (var split = 1u; split < params.splits; split++) {
        let other = bests[split * params.rows + row];
        let cosine = bitcast<f32>(other.x);
        // Tensors of classes follow on another within a split: a later one may hold the smaller number.
        if (cosine > bitcast<f32>(best.x) || (cosine == bitcast<f32>(best.x) && other.y < best.y)) {
            best = other;
        }
    }
    predicted[params.predicted_start + row * params.predicted_stride] = select(best.y, NONE, broken);
}
