// A product in tiles, o += left right, and how the invocations of a workgroup share it.
//
// A workgroup owns ROWS rows of o. Its WIDTH x HEIGHT invocations lie in a grid: along HEIGHT each owns GROUPS groups of four rows,
// along WIDTH it owns COLUMNS chunks of four dims of o. o stays in registers.
// The factors pass through workgroup memory, SLAB terms of the sums at a time: of `left` a vec4 holds one term's factors for four
// rows, of `right` four dims of one term. A term is a key, or a feature.
// Workgroup memory: 16 * (max(SLAB, WIDTH) * ROW_GROUPS + SLAB * max(WIDTH, V_CHUNKS)) bytes.
const WORKGROUP: u32 = WIDTH * HEIGHT;
const ROW_GROUPS: u32 = GROUPS * HEIGHT;
const ROWS: u32 = 4u * ROW_GROUPS;
const KEYS: u32 = 4u * WIDTH; // of a step, where keys are walked (tile_keys.wgsl)
const SLAB_CHUNKS: u32 = SLAB / 4u;
const_assert KEYS % SLAB == 0u && WIDTH % 4u == 0u;
const_assert 8u % SLAB_CHUNKS == 0u && SLAB_CHUNKS * ROW_GROUPS <= WORKGROUP && COLUMNS * WIDTH >= V_CHUNKS;

// Four terms are an axis of their own, so that a compiler finds the bounds of an index once for all of a chunk.
var<workgroup> left: array<array<array<vec4<f32>, ROW_GROUPS>, 4>, max(SLAB, WIDTH) / 4u>; // [chunk of terms, term, row group]
var<workgroup> right: array<array<array<vec4<f32>, max(WIDTH, V_CHUNKS)>, 4>, SLAB_CHUNKS>; // [chunk of terms, term, chunk of o]

var<private> invocation: u32;
var<private> x: u32; // place along WIDTH
var<private> y: u32; // place along HEIGHT
var<private> o_tile: array<array<vec4<f32>, COLUMNS>, 4u * GROUPS>; // chunk x + c * WIDTH of each row

// A number for each of this invocation's rows, and one for each of its keys and rows.
alias PerRow = array<vec4<f32>, GROUPS>;
alias PerScore = array<PerRow, 4>;

fn take_place(local: u32) {
    invocation = local;
    x = local % WIDTH;
    y = local / WIDTH;
}

// Where a vec4 stands among the `count` that share its term. Neighbours write chunks of four terms side by side; turned by
// their chunk they meet in no bank, of which eight vec4s fill all.
fn place(at: u32, chunk: u32, count: u32) -> u32 {
    return (at + chunk * (8u / SLAB_CHUNKS)) % count;
}

// Four terms of four rows, chunk `invocation % SLAB_CHUNKS` of the slab and group `invocation / SLAB_CHUNKS` of the rows: the part
// of each of the first SLAB_CHUNKS * ROW_GROUPS invocations.
fn put_left(terms: mat4x4<f32>) {
    let c = invocation % SLAB_CHUNKS;
    for (var i = 0u; i < 4u; i++) { // unroll
        left[c][i][place(invocation / SLAB_CHUNKS, c, ROW_GROUPS)] = terms[i];
    }
}

// Chunk i of a slab of values, in the order of terms.
fn put_right(i: u32, chunk: vec4<f32>) {
    let term = i / V_CHUNKS;
    right[term / 4u][term % 4u][i % V_CHUNKS] = chunk;
}

// o_tile += left * right, over a slab. `edge`: a factor on the left may be 0 because its row does not see the term.
fn add_slab(edge: bool) {
    for (var chunk = 0u; chunk < SLAB_CHUNKS; chunk++) {
        for (var i = 0u; i < 4u; i++) { // unroll
            var weight: PerRow;
            for (var g = 0u; g < GROUPS; g++) { // unroll
                weight[g] = left[chunk][i][place(y * GROUPS + g, chunk, ROW_GROUPS)];
            }
            for (var c = 0u; c < COLUMNS; c++) { // unroll
                let value = right[chunk][i][min(x + c * WIDTH, V_CHUNKS - 1u)];
                for (var g = 0u; g < GROUPS; g++) { // unroll
                    for (var r = 0u; r < 4u; r++) { // unroll
                        let own = seen(value, weight[g][r], edge);
                        o_tile[4u * g + r][c] = fma(vec4(weight[g][r]), own, o_tile[4u * g + r][c]);
                    }
                }
            }
        }
    }
}

// A value that a row may not see may be NaN, and 0 * NaN would leak.
fn seen(value: vec4<f32>, weight: f32, edge: bool) -> vec4<f32> {
    if (edge) {
        return select(vec4(0.0), value, weight != 0.0);
    }
    return value;
}
