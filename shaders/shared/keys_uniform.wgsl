// How the invocations come by k and v: every invocation reads a chunk of all KEYS keys, at addresses that are uniform in the
// workgroup. SPAN is 1.
fn hold_keys(k_base: u32, j: u32, last: u32, c: u32) -> Held {
    var keys: Held;
    for (var i = 0u; i < KEYS; i++) { // unroll
        keys[i] = key_chunk(k_base + min(j + i, last) * params.k_row, c);
    }
    return keys;
}

fn hold_values(v_base: u32, j: u32, last: u32, c: u32) -> Held {
    var values: Held;
    for (var i = 0u; i < KEYS; i++) { // unroll
        values[i] = load_v(v_base + min(j + i, last) * params.v_row, c);
    }
    return values;
}
