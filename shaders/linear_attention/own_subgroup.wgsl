// How the invocations come by eight keys and values: each reads one, and the subgroup, which is the workgroup of eight, tells
// each to all.
fn eight_key_features(keys: EightKeys, c: u32) -> array<vec4<f32>, 8> {
    return tell(query_features(c, load_k(keys.k_base + min(keys.j + lane, keys.last) * params.k_row, c)));
}

fn eight_values(v_base: u32, keys: EightKeys, c: u32) -> array<vec4<f32>, 8> {
    return tell(load_v(v_base + min(keys.j + lane, keys.last) * params.v_row, c));
}

fn tell(own: vec4<f32>) -> array<vec4<f32>, 8> {
    var all: array<vec4<f32>, 8>;
    for (var i = 0u; i < 8u; i++) { // unroll
        all[i] = subgroupBroadcast(own, i);
    }
    return all;
}
