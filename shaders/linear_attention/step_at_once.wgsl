// A state in f32: the key goes in first, and queries read what is there then.
fn take_z(f: u32, at: u32, weight: f32) {
    state_z[at] = shrink(f) * state_z[at] + weight;
}

fn key_weight(f: u32) -> f32 {
    return weights[f];
}

fn before_queries(s_base: u32, v_base: u32, invocation: u32) {
    add_key(s_base, v_base, invocation);
}

fn key_value(at: u32) -> f32 {
    return 0.0;
}

fn z_now(f: u32, at: u32) -> f32 {
    return state_z[at];
}

fn s_now(f: u32, at: u32, value: f32) -> f32 {
    return state_s[at];
}

fn after_queries(s_base: u32, z_base: u32, v_base: u32, invocation: u32) {}
