// The products of a tile of gradients by tile.wgsl: two of which a pair's numbers come, x = q k and dp = dout v, and sums += weights terms.
//
// Of the pairs an invocation owns OWN_KEYS items along WIDTH, in PerScore: a vec4 holds one item's for the rows of a group. Rows are
// queries and items keys, or the other way round.
//   pairs: left = the rows' dims, right = the items', four items a vec4;   sums: left = the weights, a term an item, right = the items' dims.
// The kernel says what they are, of `second`, the factors of dp, and else of those of x: `row_chunk(second, part, c)` is chunk c of the four
// rows of group `left_group(part)`, `item_at` is where an item starts, and `item_chunk` a chunk of it by that.
const ITEM_FOURS: u32 = SLAB_CHUNKS * KEYS / 4u; // in a slab, four items each
const ITEM_PARTS: u32 = (ITEM_FOURS + WORKGROUP - 1u) / WORKGROUP; // of them, an invocation brings so many

// Not 0: some term that a row may not see is not finite. An array, as its neighbours are best aligned to 16 bytes.
var<workgroup> broken: array<atomic<u32>, 4>;

// Before the first step, and a barrier.
fn start_items() {
    if (invocation == 0u) {
        atomicStore(&broken[0], 0u);
    }
}

// The i-th item of this invocation, of a step's: side by side in fours, or one beside those of its neighbours.
fn item_of(i: u32) -> u32 {
    return select(i * WIDTH + x, 4u * (i / 4u * WIDTH + x) + i % 4u, ITEMS_IN_FOURS);
}

// One of the two products for the step's items from j on, none past `last`.
fn product(second: bool, j: u32, last: u32) -> PerScore {
    var items_at: array<vec4<u32>, ITEM_PARTS>;
    for (var part = 0u; part < ITEM_PARTS; part++) { // unroll
        let group = group_at(item_part(part), KEYS / 4u);
        let strided = 4u * WIDTH * (group / WIDTH) + group % WIDTH + WIDTH * vec4(0u, 1u, 2u, 3u);
        let items = j + select(strided, 4u * group + vec4(0u, 1u, 2u, 3u), ITEMS_IN_FOURS);
        let own = min(items, vec4(last));
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

// Which four items, and which chunk of a slab, an invocation brings: the last ones first, which bring no rows where they are enough for
// both.
fn item_part(part: u32) -> u32 {
    return (part + 1u) * WORKGROUP - 1u - invocation;
}

// To workgroup memory: a slab of dims of the rows and of the items. Dims past the last are 0.
fn bring_factors(second: bool, slab: u32, chunks: u32, items_at: array<vec4<u32>, ITEM_PARTS>) {
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
    for (var part = 0u; part < ITEM_PARTS; part++) { // unroll
        let i = item_part(part);
        if ((part + 1u) * WORKGROUP <= ITEM_FOURS || i < ITEM_FOURS) {
            let c = chunk_at(i, KEYS / 4u);
            let group = group_at(i, KEYS / 4u);
            let chunk = SLAB_CHUNKS * slab + c;
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
            for (var d = 0u; d < 4u; d++) { // unroll
                right[c][d][group / WIDTH][group % WIDTH] = dims[d];
            }
        }
    }
    workgroupBarrier();
}

// sums += weights terms. `edge`: a weight may be 0 because a row does not see the item, which may be NaN: 0 * NaN would leak.
fn add_terms(sums: ptr<private, Sums>, weights: PerScore, second: bool, j: u32, last: u32, edge: bool) {
    for (var slab = 0u; slab < KEYS / SLAB; slab++) {
        workgroupBarrier();
        for (var i = 0u; i < OWN_KEYS; i++) { // unroll
            // Where the items of all invocations along WIDTH lie in one slab, it is known without x.
            if (select(item_of(i), i * WIDTH, SLAB % WIDTH == 0u) / SLAB == slab) {
                let term = select(item_of(i) % SLAB, i * WIDTH % SLAB + x, SLAB % WIDTH == 0u);
                for (var g = 0u; g < GROUPS; g++) { // unroll
                    left[term / 4u][term % 4u][g][y] = weights[i][g];
                }
            }
        }
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
    var terms: array<vec4<f32>, RIGHT_PARTS>;
    for (var part = 0u; part < RIGHT_PARTS; part++) { // unroll
        let i = part * WORKGROUP + invocation;
        if (has_right(part) && (V_CHUNKS == chunks || i % V_CHUNKS < chunks)) {
            terms[part] = item_chunk(second, item_at(second, min(j + i / V_CHUNKS, last)), i % V_CHUNKS);
        }
    }
    if (edge) {
        for (var part = 0u; part < RIGHT_PARTS; part++) { // unroll
            let size = bitcast<vec4<u32>>(terms[part]) & vec4(0x7fffffffu);
            if (max(max(size.x, size.y), max(size.z, size.w)) >= 0x7f800000u) {
                atomicStore(&broken[0], 1u);
            }
        }
    }
    for (var part = 0u; part < RIGHT_PARTS; part++) { // unroll
        if (has_right(part)) {
            put_right(part * WORKGROUP + invocation, terms[part]);
        }
    }
}
