// A product in tiles, o += left right, and how the invocations of a workgroup share it.
//
// A workgroup owns ROWS rows of o. Its WIDTH x HEIGHT invocations lie in a grid: along HEIGHT each owns GROUPS groups of four rows,
// along WIDTH it owns COLUMNS chunks of four dims of o. o stays in registers.
// The factors pass through workgroup memory, SLAB terms of the sums at a time: of `left` a vec4 holds one term's factors for four
// rows, of `right` four dims of one term. A term is a key, or a feature.
// Columns of `right` past the last chunk of o are never written; what they add goes to chunks of o that nobody stores.
// Workgroup memory: 64 * (LEFT_CHUNKS * ROW_GROUPS + SLAB_CHUNKS * RIGHT_COLUMNS * WIDTH) bytes.
const WORKGROUP: u32 = WIDTH * HEIGHT;
const ROW_GROUPS: u32 = GROUPS * HEIGHT;
const ROWS: u32 = 4u * ROW_GROUPS;
const KEYS: u32 = OWN_KEYS * WIDTH; // of a step, where keys are walked (tile_keys.wgsl)
const SLAB_CHUNKS: u32 = SLAB / 4u;
const LEFT_CHUNKS: u32 = max(SLAB, WIDTH) / 4u; // a slab, or what is told along WIDTH
const LEFT_PARTS: u32 = (SLAB_CHUNKS * ROW_GROUPS + WORKGROUP - 1u) / WORKGROUP; // of it, an invocation brings so many
const RIGHT_PARTS: u32 = (SLAB * V_CHUNKS + WORKGROUP - 1u) / WORKGROUP;
const RIGHT_COLUMNS: u32 = max(COLUMNS, OWN_KEYS / 4u);
const_assert KEYS % SLAB == 0u && WIDTH % 4u == 0u && OWN_KEYS % 4u == 0u;
const_assert COLUMNS * WIDTH >= V_CHUNKS;

// What an index reaches that is known when the kernel is compiled is an axis of its own, so that a compiler finds the bounds and the
// place of the others once for all.
var<workgroup> left: array<array<array<array<vec4<f32>, HEIGHT>, GROUPS>, 4>, LEFT_CHUNKS>; // [chunk of terms, term, g, y]
var<workgroup> right: array<array<array<array<vec4<f32>, WIDTH>, RIGHT_COLUMNS>, 4>, SLAB_CHUNKS>; // [chunk of terms, term, column, x]

var<private> invocation: u32;
var<private> x: u32; // place along WIDTH
var<private> y: u32; // place along HEIGHT
var<private> o_tile: Sums;

// What an invocation has of o: chunk x + c * WIDTH of each row.
alias Sums = array<array<vec4<f32>, COLUMNS>, 4u * GROUPS>;

// A number for each of this invocation's rows, and one for each of its keys and rows.
alias PerRow = array<vec4<f32>, GROUPS>;
alias PerScore = array<PerRow, OWN_KEYS>;

fn take_place(local: u32) {
    invocation = local;
    x = local % WIDTH;
    y = local / WIDTH;
}

// The tile's row that group g of this invocation begins with.
fn row_of(g: u32) -> u32 {
    return 4u * (g * HEIGHT + y);
}

// Invocations share out `groups` groups by SLAB_CHUNKS chunks of a slab, to bring four terms of a group each: neighbours take one chunk
// of different groups, so many as the largest power of two that divides them, at most eight. Eight meet in no bank, of which eight
// vec4s fill all, and all read what lies side by side.
fn log_side(groups: u32) -> u32 {
    return min(countTrailingZeros(groups), 3u);
}

// The chunk of the i-th, and the group.
fn chunk_at(i: u32, groups: u32) -> u32 {
    return (i >> log_side(groups)) % SLAB_CHUNKS;
}

fn group_at(i: u32, groups: u32) -> u32 {
    let shift = log_side(groups);
    return (((i >> shift) / SLAB_CHUNKS) << shift) + (i & ((1u << shift) - 1u));
}

// What this invocation brings to `left`, of each of its LEFT_PARTS.
fn left_chunk(part: u32) -> u32 {
    return chunk_at(part * WORKGROUP + invocation, ROW_GROUPS);
}

fn left_group(part: u32) -> u32 {
    return group_at(part * WORKGROUP + invocation, ROW_GROUPS);
}

// Whether this invocation has such a part.
fn has_left(part: u32) -> bool {
    return (part + 1u) * WORKGROUP <= SLAB_CHUNKS * ROW_GROUPS || part * WORKGROUP + invocation < SLAB_CHUNKS * ROW_GROUPS;
}

// Four terms of four rows.
fn put_left(part: u32, terms: mat4x4<f32>) {
    let group = left_group(part);
    for (var i = 0u; i < 4u; i++) { // unroll
        left[left_chunk(part)][i][group / HEIGHT][group % HEIGHT] = terms[i];
    }
}

// The same of a slab of `right`.
fn has_right(part: u32) -> bool {
    return (part + 1u) * WORKGROUP <= SLAB * V_CHUNKS || part * WORKGROUP + invocation < SLAB * V_CHUNKS;
}

// Chunk i of a slab of values, in the order of terms.
fn put_right(i: u32, chunk: vec4<f32>) {
    let term = i / V_CHUNKS;
    let c = i % V_CHUNKS;
    right[term / 4u][term % 4u][c / WIDTH][c % WIDTH] = chunk;
}

// o_tile += left right, over a slab.
fn add_slab() {
    add_slab_to(&o_tile);
}

fn add_slab_to(sums: ptr<private, Sums>) {
    for (var chunk = 0u; chunk < SLAB_CHUNKS; chunk++) {
        for (var i = 0u; i < 4u; i++) { // unroll
            var weight: PerRow;
            for (var g = 0u; g < GROUPS; g++) { // unroll
                weight[g] = left[chunk][i][g][y];
            }
            for (var c = 0u; c < COLUMNS; c++) { // unroll
                let value = right[chunk][i][c][x];
                for (var g = 0u; g < GROUPS; g++) { // unroll
                    for (var r = 0u; r < 4u; r++) { // unroll
                        (*sums)[4u * g + r][c] = fma(vec4(weight[g][r]), value, (*sums)[4u * g + r][c]);
                    }
                }
            }
        }
    }
}

// The same of terms that weigh something: of others, right may be NaN.
fn add_seen_to(sums: ptr<private, Sums>) {
    for (var term = 0u; term < SLAB; term++) {
        for (var c = 0u; c < COLUMNS; c++) { // unroll
            let value = right[term / 4u][term % 4u][c][x];
            for (var g = 0u; g < GROUPS; g++) { // unroll
                let weight = left[term / 4u][term % 4u][g][y];
                for (var r = 0u; r < 4u; r++) { // unroll
                    let seen = select(vec4(0.0), value, weight[r] != 0.0);
                    (*sums)[4u * g + r][c] = fma(vec4(weight[r]), seen, (*sums)[4u * g + r][c]);
                }
            }
        }
    }
}

// sums + left right, over a slab, where right holds four keys of a term a vec4, and a number is one of a row and a key.
fn add_scores(sums: PerScore) -> PerScore {
    var s = sums;
    for (var c = 0u; c < SLAB_CHUNKS; c++) {
        for (var d = 0u; d < 4u; d++) { // unroll
            var query: PerRow;
            for (var g = 0u; g < GROUPS; g++) { // unroll
                query[g] = left[c][d][g][y];
            }
            for (var m = 0u; m < OWN_KEYS / 4u; m++) { // unroll
                let keys = right[c][d][m][x];
                for (var i = 0u; i < 4u; i++) { // unroll
                    for (var g = 0u; g < GROUPS; g++) { // unroll
                        s[4u * m + i][g] = fma(query[g], vec4(keys[i]), s[4u * m + i][g]);
                    }
                }
            }
        }
    }
    return s;
}
