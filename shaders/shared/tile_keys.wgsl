// The two products of an attention tile by tile.wgsl: scores = q kT, and o += weights v.
//
// Of the scores an invocation owns OWN_KEYS keys along WIDTH, key i * WIDTH + x of a step, in PerScore: a vec4 holds one key's for the
// rows of a group.
//   scores: left = q, a term a dim, right = k, four keys a vec4;   o: left = the weights, a term a key, right = v.
// The kernel says what they are: `queries(part, c)` is chunk c of the four rows of group `left_group(part)`, `key_chunk` and
// `value_chunk` are a chunk of a key and of a value, by where it starts.
const KEY_CHUNKS_BROUGHT: u32 = SLAB_CHUNKS * KEYS / 4u; // in a slab, four keys each
const KEY_PARTS: u32 = (KEY_CHUNKS_BROUGHT + WORKGROUP - 1u) / WORKGROUP; // of them, an invocation brings so many

// Not 0: some value that a row may not see is not finite. An array, as its neighbours are best aligned to 16 bytes.
var<workgroup> broken: array<atomic<u32>, 4>;

// Before the first step, and a barrier.
fn start_keys() {
    if (invocation == 0u) {
        atomicStore(&broken[0], 0u);
    }
}

fn key_of(i: u32) -> u32 {
    return i * WIDTH + x;
}

// q kT for the step's keys from j on, none past `last`.
fn scores(j: u32, last: u32, k_base: u32) -> PerScore {
    return products(HEAD_CHUNKS, key_places(j, last, k_base, params.k_row));
}

alias KeyPlaces = array<vec4<u32>, KEY_PARTS>;

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

// To workgroup memory: the weights of a slab of keys.
fn put_weights(weights: PerScore, slab: u32) {
    for (var i = 0u; i < OWN_KEYS; i++) { // unroll
        // Where the keys of all invocations along WIDTH lie in one slab, it is known without x.
        if (select(key_of(i), i * WIDTH, SLAB % WIDTH == 0u) / SLAB == slab) {
            let term = select(key_of(i) % SLAB, i * WIDTH % SLAB + x, SLAB % WIDTH == 0u);
            for (var g = 0u; g < GROUPS; g++) { // unroll
                left[term / 4u][term % 4u][g][y] = weights[i][g];
            }
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

// Which four keys, and which chunk of a slab, an invocation brings: the last ones first, which bring no queries where they are
// enough for both.
fn key_part(part: u32) -> u32 {
    return (part + 1u) * WORKGROUP - 1u - invocation;
}

// Its four keys of a step from key j on.
fn keys_of(part: u32, j: u32) -> vec4<u32> {
    let group = group_at(key_part(part), KEYS / 4u);
    return vec4(j + 4u * WIDTH * (group / WIDTH) + group % WIDTH) + WIDTH * vec4(0u, 1u, 2u, 3u);
}

// Its chunk of a slab.
fn key_chunk_of(part: u32) -> u32 {
    return chunk_at(key_part(part), KEYS / 4u);
}

// Whether this invocation has such a part.
fn has_keys(part: u32) -> bool {
    return (part + 1u) * WORKGROUP <= KEY_CHUNKS_BROUGHT || key_part(part) < KEY_CHUNKS_BROUGHT;
}

// Four dims of four keys.
fn put_keys(part: u32, dims: mat4x4<f32>) {
    let group = group_at(key_part(part), KEYS / 4u);
    for (var d = 0u; d < 4u; d++) { // unroll
        right[key_chunk_of(part)][d][group / WIDTH][group % WIDTH] = dims[d];
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
    var values: array<vec4<f32>, RIGHT_PARTS>;
    for (var part = 0u; part < RIGHT_PARTS; part++) { // unroll
        let i = part * WORKGROUP + invocation;
        if (has_right(part)) {
            // Where each part is a number of rows, what an invocation adds is known once for all.
            let parts = part * (WORKGROUP / V_CHUNKS) * params.v_row + row;
            let own = select(i / V_CHUNKS * params.v_row, parts, WORKGROUP % V_CHUNKS == 0u);
            values[part] = value_chunk(v_base + min(j * params.v_row + own, last * params.v_row), i % V_CHUNKS);
        }
    }
    if (edge) {
        for (var part = 0u; part < RIGHT_PARTS; part++) { // unroll
            let size = bitcast<vec4<u32>>(values[part]) & vec4(0x7fffffffu);
            if (max(max(size.x, size.y), max(size.z, size.w)) >= 0x7f800000u) {
                atomicStore(&broken[0], 1u);
            }
        }
    }
    for (var part = 0u; part < RIGHT_PARTS; part++) { // unroll
        if (has_right(part)) {
            put_right(part * WORKGROUP + invocation, values[part]);
        }
    }
}
