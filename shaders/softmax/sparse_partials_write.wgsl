// The sums of a split and what is known of its row, for the dispatch that follows: those of the dispatch before are another region.
// Of a workspace's regions, a dispatch that writes one has all to be written.
@group(0) @binding(16) var<storage, read_write> partials_next: array<vec4<f32>>; // [rows, splits, 4]

fn store_partial(own: Sums) {
    if (lane > 0u) {
        return;
    }
    let at = 4u * (row * params.splits + split);
    partials_next[at] = own.a;
    partials_next[at + 1u] = own.b;
    partials_next[at + 2u] = vec4(low, high, log_sum, largest);
    let state = select(0.0, 1.0, is_empty) + select(0.0, 2.0, is_broken);
    partials_next[at + 3u] = vec4(term, scale, exponent, state);
}
