// The class of the largest cosine is not wanted.
const PREDICTED: bool = false;

struct Best {
    cosine: f32,
    number: u32,
}

fn resumed_best(split: u32, row: u32, owns: bool) -> Best {
    return Best(0.0, 0u);
}

fn keep_best(split: u32, row: u32, best: Best) {
}
