// The class of the largest cosine is wanted.
const PREDICTED: bool = true;

@group(0) @binding(6) var<storage, read_write> bests: array<vec2<u32>>; // [splits, rows]: the cosine, f32, and its class

struct Best {
    cosine: f32,
    number: u32,
}

fn resumed_best(split: u32, row: u32, owns: bool) -> Best {
    var best = Best(LOWEST, 0u);
    if (params.resume == 1u && owns) {
        let bits = bests[split * params.m + row];
        best = Best(bitcast<f32>(bits.x), bits.y);
    }
    return best;
}

fn keep_best(split: u32, row: u32, best: Best) {
    bests[split * params.m + row] = vec2(bitcast<u32>(best.cosine), best.number);
}
