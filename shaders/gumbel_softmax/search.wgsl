// The walk that finds the state of some columns.
// Chunks first + lane, first + lane + LANES and so on.
fn search(row: Row, first: u32, end: u32, lane: u32) -> State {
    var state = empty(row);
    for (var chunk = first + lane; chunk < end; chunk += LANES) {
        let s = scores(row, chunk);
        state.bad |= s.bad;

        // A score above all before lowers their weights.
        let candidates = select(vec4(LOWEST), s.value, s.see);
        let largest = max(max(candidates.x, candidates.y), max(candidates.z, candidates.w));
        if (any(s.see) && (state.best == NONE || largest > state.largest)) {
            if (state.best != NONE) {
                let step = min(largest - state.largest, DEEPEST * row.tau); // beyond, no weight is left
                state.sums = lowered(state.sums, step, weight(step, row.tau));
            }
            let is_largest = s.see & (candidates == vec4(largest));
            state.best = 4u * chunk + select(select(select(3u, 2u, is_largest.z), 1u, is_largest.y), 0u, is_largest.x);
            state.largest = largest;
        }

        let below = select(vec4(0.0), vec4(state.largest) - s.value, s.see);
        let weights = select(vec4(0.0), weight4(below, row.tau), s.see);
        state.sums = added(state.sums, sums_of(row, chunk, s.see, weights, below));
    }
    return state;
}
