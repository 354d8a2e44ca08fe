// Optional state, off: there is none before, and none is wanted.
fn load_states(state: u32, first_v: u32) {}

fn store_states(state: u32, first_v: u32) {}
