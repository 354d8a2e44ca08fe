// Forward: the sum of the weights.
alias Sums = f32;

fn no_sums() -> Sums {
    return 0.0;
}

fn added(a: Sums, b: Sums) -> Sums {
    return a + b;
}

// The sums where the largest score is `step` more and all weights `factor` times what they were.
fn lowered(sums: Sums, step: f32, factor: f32) -> Sums {
    return sums * factor;
}

fn as_words(sums: Sums) -> vec4<u32> {
    return vec4(bitcast<u32>(sums), 0u, 0u, 0u);
}

fn of_words(words: vec4<u32>) -> Sums {
    return bitcast<f32>(words.x);
}
