// The products of a tile of gradients by tile_keys.wgsl: two of which a pair's numbers come, x = q k and dp = dout v, and
// sums += weights terms.
//
// Rows are queries and keys are keys, or the other way round: items, which the kernel says. Of `second`, the factors of dp, and else of
// those of x, `row_chunk(second, part, c)` is chunk c of the four rows of group `left_group(part)`, `item_at` is where an item starts,
// and `item_chunk` a chunk of it by that.

// One of the two products for the step's items from j on, none past `last`.
fn product(second: bool, j: u32, last: u32) -> PerScore {
    var items_at: KeyPlaces;
    for (var part = 0u; part < KEY_PARTS; part++) { // unroll
        let own = min(keys_of(part, j), vec4(last));
        items_at[part] = vec4(item_at(second, own.x), item_at(second, own.y), item_at(second, own.z), item_at(second, own.w));
    }
    var s: PerScore;
    if (second) {
        for (var slab = 0u; slab < OUT_SLABS; slab++) {
            bring_factors(second, slab, OUT_CHUNKS, items_at);
            s = add_scores(s);
        }
    } else {
        for (var slab = 0u; slab < HEAD_SLABS; slab++) {
            bring_factors(second, slab, HEAD_CHUNKS, items_at);
            s = add_scores(s);
        }
    }
    return s;
}

// To workgroup memory: a slab of dims of the rows and of the items. Dims past the last are 0.
fn bring_factors(second: bool, slab: u32, chunks: u32, items_at: KeyPlaces) {
    workgroupBarrier();
    for (var part = 0u; part < LEFT_PARTS; part++) { // unroll
        if (has_left(part)) {
            let chunk = SLAB_CHUNKS * slab + left_chunk(part);
            var dims = mat4x4<f32>();
            if (chunks % SLAB_CHUNKS == 0u || chunk < chunks) {
                dims = row_chunk(second, part, chunk);
            }
            put_left(part, dims);
        }
    }
    for (var part = 0u; part < KEY_PARTS; part++) { // unroll
        if (has_keys(part)) {
            let chunk = SLAB_CHUNKS * slab + key_chunk_of(part);
            var dims = mat4x4<f32>();
            if (chunks % SLAB_CHUNKS == 0u || chunk < chunks) {
                let at = items_at[part];
                dims = transpose(
                    mat4x4(
                        item_chunk(second, at.x, chunk),
                        item_chunk(second, at.y, chunk),
                        item_chunk(second, at.z, chunk),
                        item_chunk(second, at.w, chunk),
                    ),
                );
            }
            put_keys(part, dims);
        }
    }
    workgroupBarrier();
}

// sums += weights terms. `edge`: a weight may be 0 because a row does not see the item, which may be NaN: 0 * NaN would leak.
fn add_terms(sums: ptr<private, Sums>, weights: PerScore, second: bool, j: u32, last: u32, edge: bool) {
    for (var slab = 0u; slab < KEYS / SLAB; slab++) {
        workgroupBarrier();
        put_weights(weights, slab);
        bring_terms(second, j + slab * SLAB, last, edge);
        workgroupBarrier();
        if (edge && atomicLoad(&broken[0]) != 0u) {
            add_seen_to(sums);
        } else {
            add_slab_to(sums);
        }
    }
}

// A slab of items from j on, none past `last`: the last takes the place of those behind it, as nothing weighs them.
fn bring_terms(second: bool, j: u32, last: u32, edge: bool) {
    let chunks = select(HEAD_CHUNKS, OUT_CHUNKS, second);
    var terms: SlabTerms;
    for (var part = 0u; part < RIGHT_PARTS; part++) { // unroll
        let i = part * WORKGROUP + invocation;
        if (has_right(part) && (V_CHUNKS == chunks || i % V_CHUNKS < chunks)) {
            terms[part] = item_chunk(second, item_at(second, min(j + i / V_CHUNKS, last)), i % V_CHUNKS);
        }
    }
    put_terms(terms, edge);
}
