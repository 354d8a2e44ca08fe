// The items that an attention tile walks, by tile.wgsl: keys, or, where rows are keys, queries that stand for them.
//
// Of the pairs of a step's rows and keys an invocation owns OWN_KEYS keys along WIDTH, in PerScore: a vec4 holds one key's for the rows of
// a group. Factors of products of rows and keys, and the terms of sums over keys, pass through workgroup memory:
//   pairs: left = the rows, a term a dim, right = the keys, four a vec4;   sums: left = the weights, a term a key, right = the terms.
// The kernel or a fragment says KEYS_IN_FOURS: whether an invocation's keys lie side by side in fours, or each beside those of its
// neighbours.
const KEY_CHUNKS_BROUGHT: u32 = SLAB_CHUNKS * KEYS / 4u; // in a slab, four keys each
const KEY_PARTS: u32 = (KEY_CHUNKS_BROUGHT + WORKGROUP - 1u) / WORKGROUP; // of them, an invocation brings so many

// Where the keys start that an invocation brings.
alias KeyPlaces = array<vec4<u32>, KEY_PARTS>;

// A slab of terms, as an invocation brings them.
alias SlabTerms = array<vec4<f32>, RIGHT_PARTS>;

// Not 0: some term that a row may not see is not finite. An array, as its neighbours are best aligned to 16 bytes.
var<workgroup> broken: array<atomic<u32>, 4>;

// Before the first step, and a barrier.
fn start_keys() {
    if (invocation == 0u) {
        atomicStore(&broken[0], 0u);
    }
}

// The i-th key of this invocation, of a step's.
fn key_of(i: u32) -> u32 {
    return select(i * WIDTH + x, 4u * (i / 4u * WIDTH + x) + i % 4u, KEYS_IN_FOURS);
}

// Which four keys, and which chunk of a slab, an invocation brings: the last ones first, which bring no rows where they are enough for
// both.
fn key_part(part: u32) -> u32 {
    return (part + 1u) * WORKGROUP - 1u - invocation;
}

// Its four keys of a step from key j on.
fn keys_of(part: u32, j: u32) -> vec4<u32> {
    let group = group_at(key_part(part), KEYS / 4u);
    if (KEYS_IN_FOURS) {
        return vec4(j + 4u * group) + vec4(0u, 1u, 2u, 3u);
    }
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

// To workgroup memory: a slab of terms. `edge`: a row may not see some of them.
fn put_terms(terms: SlabTerms, edge: bool) {
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
