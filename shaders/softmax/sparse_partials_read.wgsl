// The sums of the row's splits, as the dispatch before has found them, and what it knew of the row.
@group(0) @binding(8) var<storage, read_write> partials: array<vec4<f32>>; // [rows, splits, 4]

fn load_row() {
    let at = 4u * row * params.splits;
    let bracket = partials[at + 2u];
    low = bracket.x;
    high = bracket.y;
    log_sum = bracket.z;
    largest = bracket.w;
    let own = partials[at + 3u];
    term = own.x;
    scale = own.y;
    exponent = own.z;
    is_empty = u32(own.w) % 2u == 1u;
    is_broken = own.w >= 2.0;
}

fn most_of_splits() -> vec4<f32> {
    var most = vec4(LEAST, 0.0, 0.0, 0.0);
    for (var s = lane; s < params.splits; s += LANES) {
        most = max(most, partials[4u * (row * params.splits + s)]);
    }
    return most_over_lanes(most);
}

fn sums_of_splits() -> Sums {
    var sums = NO_SUMS;
    for (var s = lane; s < params.splits; s += LANES) {
        let at = 4u * (row * params.splits + s);
        sums = Sums(sums.a + partials[at], sums.b + partials[at + 1u]);
    }
    return over_lanes(sums);
}
