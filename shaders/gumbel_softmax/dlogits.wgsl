// Optional gradient: dlogits; 0 for classes that take no part.
fn put_dlogits(row: Row, state: State, mean: f32, chunk: u32) {
    let s = scores(row, chunk);
    // Noise that is computed again may be an ulp more.
    let below = max(select(vec4(0.0), vec4(state.largest) - s.value, s.see), vec4(0.0));
    let y = weight4(below, row.tau) / max(state.sums.x, 0.5);
    let d = select(vec4(0.0), y * (load_dy4(row, chunk, s.see) - mean) / row.tau, s.see);
    store_dlogits(row.index, chunk, select(d, vec4(bitcast<f32>(state.bad)), state.bad != 0u));
}
