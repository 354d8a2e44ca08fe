// The two products of an attention tile by tile.wgsl: scores = q kT, and o += weights v.
//
// Of the scores an invocation owns four keys along WIDTH, in PerScore: a vec4 holds one key's for the rows of a group.
//   scores: left = q, a term a dim, right = k, four keys a vec4;   o: left = the weights, a term a key, right = v.
// The kernel says what they are: `queries(c)` is chunk c of the four rows that begin at 4 * (invocation / SLAB_CHUNKS),
// `key_chunk` and `value_chunk` are a chunk of a key and of a value, by where it starts.

// q kT for the step's keys from j on, none past `last`.
fn scores(j: u32, last: u32, k_base: u32) -> PerScore {
    var s: PerScore;
    for (var slab = 0u; slab < HEAD_SLABS; slab++) {
        workgroupBarrier();
        bring_queries(slab);
        bring_keys(slab, j, last, k_base);
        workgroupBarrier();
        for (var c = 0u; c < SLAB_CHUNKS; c++) {
            for (var d = 0u; d < 4u; d++) { // unroll
                let key = right[c][d][place(x, c, WIDTH)];
                for (var g = 0u; g < GROUPS; g++) { // unroll
                    let query = left[c][d][place(y * GROUPS + g, c, ROW_GROUPS)];
                    for (var i = 0u; i < 4u; i++) { // unroll
                        s[i][g] = fma(query, vec4(key[i]), s[i][g]);
                    }
                }
            }
        }
    }
    return s;
}

// o_tile += weights v. `edge`: a weight may be 0 because its row does not see the key.
fn add_values(weights: PerScore, j: u32, last: u32, edge: bool, v_base: u32) {
    for (var slab = 0u; slab < KEYS / SLAB; slab++) {
        workgroupBarrier();
        if (x / SLAB_CHUNKS == slab) {
            let c = x % SLAB_CHUNKS;
            for (var g = 0u; g < GROUPS; g++) { // unroll
                for (var i = 0u; i < 4u; i++) { // unroll
                    left[c][i][place(y * GROUPS + g, c, ROW_GROUPS)] = weights[i][g];
                }
            }
        }
        bring_values(j + slab * SLAB, last, v_base);
        workgroupBarrier();
        add_slab(edge);
    }
}

// To workgroup memory: a slab of dims of the rows, four rows to an invocation. Dims past the last are 0.
fn bring_queries(slab: u32) {
    if (invocation < SLAB_CHUNKS * ROW_GROUPS) {
        let chunk = SLAB_CHUNKS * slab + invocation % SLAB_CHUNKS;
        var dims = mat4x4<f32>();
        if (chunk < HEAD_CHUNKS) {
            dims = queries(chunk);
        }
        put_left(dims);
    }
}

// The same of the keys from position j on, none past `last`, four keys to an invocation: the last ones first, which bring
// no queries where they are enough for both.
fn bring_keys(slab: u32, j: u32, last: u32, k_base: u32) {
    for (var i = WORKGROUP - 1u - invocation; i < SLAB_CHUNKS * WIDTH; i += WORKGROUP) {
        let c = i % SLAB_CHUNKS;
        let chunk = SLAB_CHUNKS * slab + c;
        var dims = mat4x4<f32>();
        if (chunk < HEAD_CHUNKS) {
            let at = k_base + min(vec4(j + 4u * (i / SLAB_CHUNKS)) + vec4(0u, 1u, 2u, 3u), vec4(last)) * params.k_row;
            dims = transpose(
                mat4x4(key_chunk(at.x, chunk), key_chunk(at.y, chunk), key_chunk(at.z, chunk), key_chunk(at.w, chunk)),
            );
        }
        for (var d = 0u; d < 4u; d++) { // unroll
            right[c][d][place(i / SLAB_CHUNKS, c, WIDTH)] = dims[d];
        }
    }
}

// A slab of values from position j on, none past `last`.
fn bring_values(j: u32, last: u32, v_base: u32) {
    for (var i = invocation; i < SLAB * V_CHUNKS; i += WORKGROUP) {
        put_right(i, value_chunk(v_base + min(j + i / V_CHUNKS, last) * params.v_row, i % V_CHUNKS));
    }
}
