// Forward, where nothing is asked for each column: writes the index alone.
fn write(row: Row, state: State, first: u32, end: u32, lane: u32) {
}

fn write_row(row: Row, state: State) {
    put_index(row.index, select(NONE, state.best, state.bad == 0u));
}
