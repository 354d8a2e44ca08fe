// Weights under the second-order Taylor map, whose derivative by s = x~(q).x~(k) is 1 + s, and what they add up, which is x~.
var<private> of_map: bool; // whether products are those of x~

fn weigh(j: u32, last: u32, k_base: u32) -> PerScore {
    of_map = false;
    var weights = divided(scores(j, last, k_base), j, last);
    of_map = true;
    let s = products(O_CHUNKS, key_places(j, last, values_at, params.v_row));
    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var i = 0u; i < OWN_KEYS; i++) { // unroll
            weights[i][g] *= 1.0 + s[i][g];
        }
    }
    return weights;
}

fn queries(part: u32, c: u32) -> mat4x4<f32> {
    if (of_map) {
        return own_rows(c);
    }
    return mapped_rows(c);
}

fn key_chunk(base: u32, c: u32) -> vec4<f32> {
    if (of_map) {
        return params.input_scale * load_v(base, c);
    }
    return mapped(c, load_k(base, c));
}

fn add_pairs(weights: PerScore, j: u32, last: u32, edge: bool, v_base: u32) {
    add_values(weights, j, last, edge, v_base);
}

fn value_chunk(base: u32, c: u32) -> vec4<f32> {
    return params.input_scale * load_v(base, min(chunk_of(c), O_CHUNKS - 1u));
}
