// Weights of a step's keys in a tile, from the products of what the map makes of queries and keys.
fn weigh(j: u32, last: u32, k_base: u32) -> PerScore {
    var s = scores(j, last, k_base);
    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var i = 0u; i < OWN_KEYS; i++) { // unroll
            s[i][g] = pair_weight(s[i][g]);
        }
    }
    return s;
}

fn queries(part: u32, c: u32) -> mat4x4<f32> {
    return mapped_rows(c);
}

fn key_chunk(base: u32, c: u32) -> vec4<f32> {
    return mapped(c, load_k(base, c));
}
