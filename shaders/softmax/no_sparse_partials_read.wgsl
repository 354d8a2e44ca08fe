// No dispatch came before.
fn load_row() {
}

fn most_of_splits() -> vec4<f32> {
    return vec4(0.0);
}

fn sums_of_splits() -> Sums {
    return NO_SUMS;
}
