// The two products of an attention tile, in registers: scores = q kT, and o += weights v.
//
// A workgroup owns ROWS rows and takes KEYS keys a step. Its WIDTH x HEIGHT invocations lie in a grid: along HEIGHT each owns
// GROUPS groups of four rows; along WIDTH it owns four keys of the scores, and COLUMNS chunks of four dims of o. Of the scores,
// a vec4 holds one key's for the rows of a group; of o it holds four dims of a row.
// The factors pass through workgroup memory, SLAB dims or keys at a time:
//   scores: left = q, a row group a vec4, right = k, four keys a vec4;   o: left = the weights, right = v, four dims a vec4.
// The kernel says what they are: `queries(c)` is chunk c of the four rows that begin at 4 * (invocation / SLAB_CHUNKS),
// `key_chunk` and `value_chunk` are a chunk of a key and of a value, by where it starts.
// Workgroup memory: 16 * (max(SLAB, WIDTH) * ROW_GROUPS + SLAB * max(WIDTH, V_CHUNKS)) bytes.
const WORKGROUP: u32 = WIDTH * HEIGHT;
const ROW_GROUPS: u32 = GROUPS * HEIGHT;
const ROWS: u32 = 4u * ROW_GROUPS;
const KEYS: u32 = 4u * WIDTH; // of a step
const SLAB_CHUNKS: u32 = SLAB / 4u;
const_assert KEYS % SLAB == 0u && 8u % SLAB_CHUNKS == 0u && SLAB_CHUNKS * ROW_GROUPS <= WORKGROUP && COLUMNS * WIDTH >= V_CHUNKS;

var<workgroup> left: array<vec4<f32>, max(SLAB, WIDTH) * ROW_GROUPS>; // [dim or key of the slab, row group]
var<workgroup> right: array<vec4<f32>, SLAB * max(WIDTH, V_CHUNKS)>; // [dim, four keys], or [key, chunk of v]

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

// Where a vec4 stands among the `count` that share its dim or key. Neighbours write chunks of SLAB dims side by side; turned by
// their chunk they meet in no bank, of which eight vec4s fill all.
fn place(at: u32, chunk: u32, count: u32) -> u32 {
    return (at + chunk * (8u / SLAB_CHUNKS)) % count;
}

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
                let key = right[(4u * c + d) * WIDTH + place(x, c, WIDTH)];
                for (var g = 0u; g < GROUPS; g++) { // unroll
                    let query = left[(4u * c + d) * ROW_GROUPS + place(y * GROUPS + g, c, ROW_GROUPS)];
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
                    left[(4u * c + i) * ROW_GROUPS + place(y * GROUPS + g, c, ROW_GROUPS)] = weights[i][g];
                }
            }
        }
        bring_values(j + slab * SLAB, last, v_base);
        workgroupBarrier();
        add_slab(edge);
    }
}

// o_tile += left * right, over a slab of weights and values.
fn add_slab(edge: bool) {
    for (var chunk = 0u; chunk < SLAB_CHUNKS; chunk++) {
        for (var i = 0u; i < 4u; i++) { // unroll
            var weight: PerRow;
            for (var g = 0u; g < GROUPS; g++) { // unroll
                weight[g] = left[(4u * chunk + i) * ROW_GROUPS + place(y * GROUPS + g, chunk, ROW_GROUPS)];
            }
            for (var c = 0u; c < COLUMNS; c++) { // unroll
                let value = right[(4u * chunk + i) * V_CHUNKS + min(x + c * WIDTH, V_CHUNKS - 1u)];
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

// To workgroup memory: a slab of dims of the rows, four rows to an invocation. Dims past the last are 0.
fn bring_queries(slab: u32) {
    if (invocation < SLAB_CHUNKS * ROW_GROUPS) {
        let c = invocation % SLAB_CHUNKS;
        let chunk = SLAB_CHUNKS * slab + c;
        var dims = mat4x4<f32>();
        if (chunk < HEAD_CHUNKS) {
            dims = queries(chunk);
        }
        for (var d = 0u; d < 4u; d++) { // unroll
            left[(4u * c + d) * ROW_GROUPS + place(invocation / SLAB_CHUNKS, c, ROW_GROUPS)] = dims[d];
        }
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
            right[(4u * c + d) * WIDTH + place(i / SLAB_CHUNKS, c, WIDTH)] = dims[d];
        }
    }
}

// A slab of values from position j on, none past `last`.
fn bring_values(j: u32, last: u32, v_base: u32) {
    for (var i = invocation; i < SLAB * V_CHUNKS; i += WORKGROUP) {
        right[i] = value_chunk(v_base + min(j + i / V_CHUNKS, last) * params.v_row, i % V_CHUNKS);
    }
}
