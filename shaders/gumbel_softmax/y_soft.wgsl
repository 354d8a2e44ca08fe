// The relaxed sample: the softmax of scores / tau; 0 for classes that take no part.
fn put_y(row: Row, state: State, chunk: u32) {
    let s = scores(row, chunk);
    // Noise that is computed again may be an ulp more.
    let below = max(select(vec4(0.0), vec4(state.largest) - s.value, s.see), vec4(0.0));
    let y = select(vec4(0.0), weight4(below, row.tau) / max(state.sums, 0.5), s.see);
    store_y(row.index, chunk, select(y, vec4(bitcast<f32>(state.bad)), state.bad != 0u));
}
