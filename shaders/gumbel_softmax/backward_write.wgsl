// Backward: dlogits = y (dy - <y, dy>) / tau, and the row's share of dtau.
// With s the scores, dtau = -sum y (dy - <y, dy>) s / tau^2; as y (dy - <y, dy>) sums to 0, how far s is under the largest
// score may stand for -s, which does not cancel at a large common offset.
fn write(row: Row, state: State, first: u32, end: u32, lane: u32) {
    let mean = state.sums.y / max(state.sums.x, 0.5);
    for (var chunk = first + lane; chunk < end; chunk += LANES) {
        put_dlogits(row, state, mean, chunk);
    }
}

fn write_row(row: Row, state: State) {
    var dtau = 0.0;
    if (state.best != NONE) {
        let mean = state.sums.y / state.sums.x;
        dtau = (state.sums.w - mean * state.sums.z) / state.sums.x / row.tau / row.tau;
    }
    put_dtau(row.index, select(dtau, bitcast<f32>(state.bad), state.bad != 0u));
}
