// A product in tiles, o += left right, and how the invocations of a workgroup share it.
//
// A workgroup owns ROWS rows of o. Its WIDTH x HEIGHT invocations lie in a grid: along HEIGHT each owns GROUPS groups of four rows,
// along WIDTH it owns COLUMNS chunks of four dims of o. o stays in registers.
// The factors pass through workgroup memory, SLAB terms of the sums at a time: of `left` a vec4 holds one term's factors for four
// rows, of `right` four dims of one term. A term is a key, or a feature.
// Workgroup memory: 16 * (LEFT_CHUNKS * (4 * ROW_GROUPS + APART) + SLAB_CHUNKS * (4 * RIGHT_COLUMNS * WIDTH + APART)) bytes.
const WORKGROUP: u32 = WIDTH * HEIGHT;
const ROW_GROUPS: u32 = GROUPS * HEIGHT;
const ROWS: u32 = 4u * ROW_GROUPS;
const KEYS: u32 = OWN_KEYS * WIDTH; // of a step, where keys are walked (tile_keys.wgsl)
const SLAB_CHUNKS: u32 = SLAB / 4u;
const LEFT_CHUNKS: u32 = max(SLAB, WIDTH) / 4u; // a slab, or what is told along WIDTH
const LEFT_PARTS: u32 = (SLAB_CHUNKS * ROW_GROUPS + WORKGROUP - 1u) / WORKGROUP; // of it, an invocation brings so many
const RIGHT_COLUMNS: u32 = max(COLUMNS, OWN_KEYS / 4u);
const APART: u32 = 8u / SLAB_CHUNKS; // see LeftChunk
const_assert KEYS % SLAB == 0u && WIDTH % 4u == 0u && OWN_KEYS % 4u == 0u;
const_assert 8u % SLAB_CHUNKS == 0u && COLUMNS * WIDTH >= V_CHUNKS;

// Four terms. What an index reaches that is known when the kernel is compiled is an axis of its own, so that a compiler finds the
// bounds and the place of the others once for all. Neighbours write chunks side by side: these lie so far apart that they meet
// in no bank, of which eight vec4s fill all.
struct LeftChunk {
    term: array<array<array<vec4<f32>, HEIGHT>, GROUPS>, 4>, // [term, g, y]
    apart: array<vec4<f32>, APART>,
}

struct RightChunk {
    term: array<array<array<vec4<f32>, WIDTH>, RIGHT_COLUMNS>, 4>, // [term, column, x]
    apart: array<vec4<f32>, APART>,
}

var<workgroup> left: array<LeftChunk, LEFT_CHUNKS>;
var<workgroup> right: array<RightChunk, SLAB_CHUNKS>;

var<private> invocation: u32;
var<private> x: u32; // place along WIDTH
var<private> y: u32; // place along HEIGHT
var<private> o_tile: array<array<vec4<f32>, COLUMNS>, 4u * GROUPS>; // chunk x + c * WIDTH of each row

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

// Which chunk of a slab this invocation brings to `left`, and which group of the tile's rows, of each of its LEFT_PARTS.
fn left_chunk() -> u32 {
    return invocation % SLAB_CHUNKS;
}

fn left_group(part: u32) -> u32 {
    return (part * WORKGROUP + invocation) / SLAB_CHUNKS;
}

// Whether this invocation has such a part.
fn has_left(part: u32) -> bool {
    return (part + 1u) * WORKGROUP <= SLAB_CHUNKS * ROW_GROUPS || part * WORKGROUP + invocation < SLAB_CHUNKS * ROW_GROUPS;
}

// Four terms of four rows.
fn put_left(part: u32, terms: mat4x4<f32>) {
    let group = left_group(part);
    for (var i = 0u; i < 4u; i++) { // unroll
        left[left_chunk()].term[i][group / HEIGHT][group % HEIGHT] = terms[i];
    }
}

// Chunk i of a slab of values, in the order of terms.
fn put_right(i: u32, chunk: vec4<f32>) {
    let term = i / V_CHUNKS;
    let c = i % V_CHUNKS;
    right[term / 4u].term[term % 4u][c / WIDTH][c % WIDTH] = chunk;
}

// o_tile += left * right, over a slab.
fn add_slab() {
    for (var chunk = 0u; chunk < SLAB_CHUNKS; chunk++) {
        for (var i = 0u; i < 4u; i++) { // unroll
            var weight: PerRow;
            for (var g = 0u; g < GROUPS; g++) { // unroll
                weight[g] = left[chunk].term[i][g][y];
            }
            for (var c = 0u; c < COLUMNS; c++) { // unroll
                let value = right[chunk].term[i][c][x];
                for (var g = 0u; g < GROUPS; g++) { // unroll
                    for (var r = 0u; r < 4u; r++) { // unroll
                        o_tile[4u * g + r][c] = fma(vec4(weight[g][r]), value, o_tile[4u * g + r][c]);
                    }
                }
            }
        }
    }
}
