// Backward: sums over the classes, of weights w, with `below` how far a score is under the largest.
alias Sums = vec4<f32>; // w, w * dy, w * below, w * below * dy

fn no_sums() -> Sums {
    return vec4(0.0);
}

fn added(a: Sums, b: Sums) -> Sums {
    return a + b;
}

// The sums where the largest score is `step` more and all weights `factor` times what they were.
fn lowered(sums: Sums, step: f32, factor: f32) -> Sums {
    return factor * (sums + step * vec4(0.0, 0.0, sums.xy));
}

fn as_words(sums: Sums) -> vec4<u32> {
    return bitcast<vec4<u32>>(sums);
}

fn of_words(words: vec4<u32>) -> Sums {
    return bitcast<vec4<f32>>(words);
}
