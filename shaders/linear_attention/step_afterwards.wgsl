// A state in 16 bits: queries add the key to what they read, in f32, and the state is written when they are done.
var<workgroup> key_weights: array<f32, FEATURES>;

fn take_z(f: u32, at: u32, weight: f32) {
    key_weights[f] = weight;
}

fn key_weight(f: u32) -> f32 {
    return key_weights[f];
}

fn before_queries(s_base: u32, v_base: u32, invocation: u32) {}

fn key_value(at: u32) -> f32 {
    return v[at];
}

fn z_now(f: u32, at: u32) -> f32 {
    return shrink(f) * state_z[at] + key_weights[f];
}

fn s_now(f: u32, at: u32, value: f32) -> f32 {
    return shrink(f) * state_s[at] + key_weights[f] * value;
}

fn after_queries(s_base: u32, z_base: u32, v_base: u32, invocation: u32) {
    add_key(s_base, v_base, invocation);
    // Who writes a number of z is not who has read it.
    storageBarrier();
    for (var first = OWN * invocation; first < FEATURES; first += OWN * WORKGROUP) {
        for (var i = 0u; i < OWN; i++) { // unroll
            let f = first + i;
            if (f < FEATURES) {
                state_z[z_base + f] = z_now(f, z_base + f);
            }
        }
    }
}
