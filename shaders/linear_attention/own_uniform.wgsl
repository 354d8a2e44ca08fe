// How the invocations come by eight keys and values: every one reads all of them, at addresses that are uniform in the workgroup.
fn eight_key_features(keys: EightKeys, c: u32) -> array<vec4<f32>, 8> {
    var eight: array<vec4<f32>, 8>;
    for (var i = 0u; i < 8u; i++) { // unroll
        eight[i] = query_features(c, load_k(keys.k_base + min(keys.j + i, keys.last) * params.k_row, c));
    }
    return eight;
}

fn eight_values(v_base: u32, keys: EightKeys, c: u32) -> array<vec4<f32>, 8> {
    var eight: array<vec4<f32>, 8>;
    for (var i = 0u; i < 8u; i++) { // unroll
        eight[i] = load_v(v_base + min(keys.j + i, keys.last) * params.v_row, c);
    }
    return eight;
}
