// The sample itself: exactly 1 at the largest score, and exactly 0 elsewhere.
fn put_y(row: Row, state: State, chunk: u32) {
    let columns = vec4(4u * chunk) + vec4(0u, 1u, 2u, 3u);
    let y = select(vec4(0.0), vec4(1.0), (columns == vec4(state.best)) & in_row(chunk));
    store_y(row.index, chunk, select(y, vec4(bitcast<f32>(state.bad)), state.bad != 0u));
}
