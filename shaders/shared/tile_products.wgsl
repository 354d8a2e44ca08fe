// The two products of an attention tile by tile_keys.wgsl: scores = q kT, and o += weights v.
//
// The kernel says what they are: `queries(part, c)` is chunk c of the four rows of group `left_group(part)`, `key_chunk` and
// `value_chunk` are a chunk of a key and of a value, by where it starts.
const KEYS_IN_FOURS: bool = false;

// q kT for the step's keys from j on, none past `last`.
fn scores(j: u32, last: u32, k_base: u32) -> PerScore {
    return products(HEAD_CHUNKS, key_places(j, last, k_base, params.k_row));
}

// Where the keys start that this invocation brings.
fn key_places(j: u32, last: u32, k_base: u32, k_row: u32) -> KeyPlaces {
    var keys_at: KeyPlaces;
    for (var part = 0u; part < KEY_PARTS; part++) { // unroll
        keys_at[part] = k_base + min(keys_of(part, j), vec4(last)) * k_row;
    }
    return keys_at;
}

// Products of rows and keys, over so many chunks of dims.
fn products(chunks: u32, keys_at: KeyPlaces) -> PerScore {
    var s: PerScore;
    for (var slab = 0u; slab < (chunks + SLAB_CHUNKS - 1u) / SLAB_CHUNKS; slab++) {
        workgroupBarrier();
        bring_queries(slab, chunks);
        for (var part = 0u; part < KEY_PARTS; part++) { // unroll
            bring_keys(slab, part, keys_at[part], chunks);
        }
        workgroupBarrier();
        s = add_scores(s);
    }
    return s;
}

// o_tile += weights v. `edge`: a weight may be 0 because its row does not see the key, whose value may be NaN: 0 * NaN would leak.
fn add_values(weights: PerScore, j: u32, last: u32, edge: bool, v_base: u32) {
    for (var slab = 0u; slab < KEYS / SLAB; slab++) {
        workgroupBarrier();
        put_weights(weights, slab);
        bring_values(j + slab * SLAB, last, edge, v_base);
        workgroupBarrier();
        if (edge && atomicLoad(&broken[0]) != 0u) {
            add_seen_to(&o_tile);
        } else {
            add_slab();
        }
    }
}

// To workgroup memory: a slab of dims of the rows, four rows to an invocation. Dims past the last chunk are 0.
fn bring_queries(slab: u32, chunks: u32) {
    for (var part = 0u; part < LEFT_PARTS; part++) { // unroll
        if (has_left(part)) {
            let chunk = SLAB_CHUNKS * slab + left_chunk(part);
            var dims = mat4x4<f32>();
            if (chunks % SLAB_CHUNKS == 0u || chunk < chunks) {
                dims = queries(part, chunk);
            }
            put_left(part, dims);
        }
    }
}

// The same of four keys by where they start.
fn bring_keys(slab: u32, part: u32, at: vec4<u32>, chunks: u32) {
    if (has_keys(part)) {
        let chunk = SLAB_CHUNKS * slab + key_chunk_of(part);
        var dims = mat4x4<f32>();
        if (chunks % SLAB_CHUNKS == 0u || chunk < chunks) {
            dims = transpose(
                mat4x4(key_chunk(at.x, chunk), key_chunk(at.y, chunk), key_chunk(at.z, chunk), key_chunk(at.w, chunk)),
            );
        }
        put_keys(part, dims);
    }
}

// A slab of values from position j on, none past `last`: the last place takes the place of those behind it, and of those whose own
// passes what a u32 holds another does, as nothing weighs them.
fn bring_values(j: u32, last: u32, edge: bool, v_base: u32) {
    let row = invocation / V_CHUNKS * params.v_row;
    var values: SlabTerms;
    for (var part = 0u; part < RIGHT_PARTS; part++) { // unroll
        let i = part * WORKGROUP + invocation;
        if (has_right(part)) {
            // Where each part is a number of rows, what an invocation adds is known once for all.
            let parts = part * (WORKGROUP / V_CHUNKS) * params.v_row + row;
            let own = select(i / V_CHUNKS * params.v_row, parts, WORKGROUP % V_CHUNKS == 0u);
            values[part] = value_chunk(v_base + min(j * params.v_row + own, last * params.v_row), i % V_CHUNKS);
        }
    }
    put_terms(values, edge);
}
