// The statistics of a split, for the dispatch that follows: first those of its scores, then (term, scale, 0, 0).
@group(0) @binding(8) var<storage, read_write> partials: array<vec4<f32>>; // [rows, splits, 2]

fn store_partial(own: Statistics) {
    let at = 2u * (row * params.splits + split);
    partials[at] = packed(own);
    partials[at + 1u] = vec4(term, scale, 0.0, 0.0);
}

fn load_partial(s: u32) -> Statistics {
    return NOTHING;
}

fn load_scale() {
}
