// How the invocations come by k and v: each reads one chunk of one key, and the subgroup, which is the workgroup of KEYS * SPAN
// invocations, tells each to all.
fn hold_keys(k_base: u32, j: u32, last: u32, c: u32) -> Held {
    return tell(key_chunk(k_base + min(j + lane % KEYS, last) * params.k_row, c + lane / KEYS));
}

fn hold_values(v_base: u32, j: u32, last: u32, c: u32) -> Held {
    return tell(load_v(v_base + min(j + lane % KEYS, last) * params.v_row, c + lane / KEYS));
}

fn tell(own: vec4<f32>) -> Held {
    var all: Held;
    for (var i = 0u; i < KEYS * SPAN; i++) { // unroll
        all[i] = subgroupBroadcast(own, i);
    }
    return all;
}
