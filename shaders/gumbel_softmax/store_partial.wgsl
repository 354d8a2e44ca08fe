// The states of slices, as one kernel leaves them to the next.
@group(0) @binding(4) var<storage, read_write> partials: array<vec4<u32>>; // [rows, slices, 2]

fn store_partial(at: u32, state: State) {
    partials[2u * at] = vec4(bitcast<u32>(state.largest), state.best, state.bad, 0u);
    partials[2u * at + 1u] = as_words(state.sums);
}
