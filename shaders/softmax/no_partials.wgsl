// Rows that are not split.
fn store_partial(own: Statistics) {
}

fn load_partial(s: u32) -> Statistics {
    return NOTHING;
}

fn load_scale() {
}
