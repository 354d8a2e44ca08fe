// Forward: writes y and the noise, as far as they are asked for.
fn write(row: Row, state: State, first: u32, end: u32, lane: u32) {
    for (var chunk = first + lane; chunk < end; chunk += LANES) {
        put_y(row, state, chunk);
        put_noise(row, chunk);
    }
}

fn write_row(row: Row, state: State) {
    put_index(row.index, select(NONE, state.best, state.bad == 0u));
}
