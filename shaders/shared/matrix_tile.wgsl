// The two products of an attention by matrices that a subgroup multiplies, and how they share workgroup memory.
//
// Each of SUBGROUPS subgroups owns OWN_ROWS rows of a tile and their o, in matrices of f32. q stays in workgroup memory; k and v
// pass through one tile there, after each other. Scores come out of their matrices through workgroup memory, for only there is
// it known which number stands where; WIDTH invocations of the subgroup share four rows of them, and leave the weights in
// f16. o is in units of e to the row_max; row_max follows the largest score only when that is more than GROWTH above it, so that o is
// seldom rescaled, which takes it through workgroup memory, and no weight exceeds 2^8. Rows of tiles are longer than they
// need be, to lie in different banks. The kernel says what the factors are: `query_chunk`, `key_chunk` and `value_chunk` are
// four dims of a row, by where it starts.
// Workgroup memory: 2 * (ROWS * Q_STRIDE + KEYS * KV_STRIDE + ROWS * P_STRIDE) + 4 * (ROWS * S_STRIDE + SUBGROUPS) bytes.
const WORKGROUP: u32 = SUBGROUP * SUBGROUPS;
const OWN_ROWS: u32 = 16u;
const ROWS: u32 = OWN_ROWS * SUBGROUPS;
const WIDTH: u32 = SUBGROUP / 4u; // invocations that share four rows
const GROUPS: u32 = 1u;
const OWN_KEYS: u32 = KEYS / WIDTH; // of an invocation in a step
const ROW_MATRICES: u32 = OWN_ROWS / SIZE;
const KEY_MATRICES: u32 = KEYS / SIZE;
const HEAD_MATRICES: u32 = (4u * HEAD_CHUNKS + SIZE - 1u) / SIZE;
const V_MATRICES: u32 = (4u * V_CHUNKS + SIZE - 1u) / SIZE;
const Q_CHUNKS: u32 = HEAD_MATRICES * SIZE / 4u; // with those that are 0
const KV_CHUNKS: u32 = V_MATRICES * SIZE / 4u;
const Q_STRIDE: u32 = 4u * Q_CHUNKS + 8u;
const KV_STRIDE: u32 = 4u * max(Q_CHUNKS, KV_CHUNKS) + 8u;
const S_STRIDE: u32 = KEYS + 4u;
const P_STRIDE: u32 = KEYS + 8u;
const GROWTH: f32 = 8.0 * UNIT / LOG2_E;
const_assert SUBGROUP % 4u == 0u && KEYS % WIDTH == 0u && KEYS % SIZE == 0u && OWN_ROWS % SIZE == 0u;

var<workgroup> q_tile: array<f16, ROWS * Q_STRIDE>; // [row, dim]
var<workgroup> kv_tile: array<f16, KEYS * KV_STRIDE>; // [key, dim]
var<workgroup> p_tile: array<f16, ROWS * P_STRIDE>; // [row, key]
var<workgroup> s_tile: array<f32, ROWS * S_STRIDE>; // [row, key]; or SIZE dims of o
var<workgroup> grown: array<u32, SUBGROUPS>; // whether a maximum did in this step

// A number for each of four rows.
alias PerRow = array<vec4<f32>, GROUPS>;

var<private> invocation: u32;
var<private> x: u32; // along WIDTH
var<private> y: u32; // four rows of the tile
var<private> own_row: u32; // the subgroup's first
var<private> row_max: vec4<f32>;
var<private> o_sums: array<array<Sums, V_MATRICES>, ROW_MATRICES>;

fn take_place(local: u32, subgroup: u32, lane: u32) {
    invocation = local;
    x = lane % WIDTH;
    y = subgroup * (OWN_ROWS / 4u) + lane / WIDTH;
    own_row = subgroup * OWN_ROWS;
    row_max = vec4(HIDDEN);
    for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
        for (var c = 0u; c < V_MATRICES; c++) { // unroll
            o_sums[m][c] = Sums();
        }
    }
}

// Scores of a step's keys from j on: q kT. The tile holds the values of the step before until all have multiplied them.
fn score_keys(j: u32, last: u32, k_base: u32) {
    workgroupBarrier();
    bring_keys(j, last, k_base);
    workgroupBarrier();
    multiply_keys();
    workgroupBarrier();
}

// Of this invocation's keys in a step, i: its place among them, and its scores.
fn own_key(i: u32) -> u32 {
    return x + i * WIDTH;
}

fn scores_of(i: u32) -> vec4<f32> {
    let at = 4u * y * S_STRIDE + own_key(i);
    return vec4(s_tile[at], s_tile[at + S_STRIDE], s_tile[at + 2u * S_STRIDE], s_tile[at + 3u * S_STRIDE]);
}

fn put_weights(i: u32, p: vec4<f32>) {
    for (var r = 0u; r < 4u; r++) { // unroll
        p_tile[(4u * y + r) * P_STRIDE + own_key(i)] = f16(p[r]);
    }
}

// By how much row_max changes, downwards, where the largest score of this invocation's rows is far above it.
fn follow_maxima(largest: vec4<f32>) -> vec4<f32> {
    let new_max = largest_along_width(PerRow(largest))[0u];
    let grew = new_max > row_max + vec4(GROWTH);
    let step_down = select(vec4(0.0), row_max - new_max, grew);
    row_max = select(row_max, new_max, grew);
    let any_grew = subgroupAny(any(grew));
    if (x == 0u && 4u * y == own_row) {
        grown[own_row / OWN_ROWS] = u32(any_grew);
    }
    return step_down;
}

// o = shrink * o + weights v, once all have left their weights.
fn add_values(shrink: vec4<f32>, j: u32, last: u32, edge: bool, v_base: u32) {
    bring_values(j, last, edge, v_base);
    let grown_now = workgroupUniformLoad(&grown);
    var any_grown = 0u;
    for (var i = 0u; i < SUBGROUPS; i++) { // unroll
        any_grown |= grown_now[i];
    }
    if (any_grown != 0u) {
        rescale(shrink);
    }
    multiply_values();
}

// The scores of the subgroup's rows, to workgroup memory.
fn multiply_keys() {
    var scores: array<array<Sums, KEY_MATRICES>, ROW_MATRICES>;
    for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
        for (var n = 0u; n < KEY_MATRICES; n++) { // unroll
            scores[m][n] = Sums();
        }
    }
    for (var d = 0u; d < HEAD_MATRICES; d++) {
        var queries: array<Left, ROW_MATRICES>;
        for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
            queries[m] = coopLoadT<Left>(&q_tile[(own_row + m * SIZE) * Q_STRIDE + d * SIZE], Q_STRIDE);
        }
        for (var n = 0u; n < KEY_MATRICES; n++) { // unroll
            // A key is a column.
            let keys = coopLoad<Right>(&kv_tile[n * SIZE * KV_STRIDE + d * SIZE], KV_STRIDE);
            for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
                scores[m][n] = coopMultiplyAdd(queries[m], keys, scores[m][n]);
            }
        }
    }
    for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
        for (var n = 0u; n < KEY_MATRICES; n++) { // unroll
            coopStoreT(scores[m][n], &s_tile[(own_row + m * SIZE) * S_STRIDE + n * SIZE], S_STRIDE);
        }
    }
}

fn multiply_values() {
    for (var n = 0u; n < KEY_MATRICES; n++) {
        var weights: array<Left, ROW_MATRICES>;
        for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
            weights[m] = coopLoadT<Left>(&p_tile[(own_row + m * SIZE) * P_STRIDE + n * SIZE], P_STRIDE);
        }
        for (var c = 0u; c < V_MATRICES; c++) { // unroll
            let values = coopLoadT<Right>(&kv_tile[n * SIZE * KV_STRIDE + c * SIZE], KV_STRIDE);
            for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
                o_sums[m][c] = coopMultiplyAdd(weights[m], values, o_sums[m][c]);
            }
        }
    }
}

// SIZE dims of the subgroup's rows of o to where the scores were, once all have done with what is there.
fn put_o_sums(dims: u32) {
    workgroupBarrier();
    for (var c = 0u; c < V_MATRICES; c++) { // unroll
        if (dims == c) {
            for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
                coopStoreT(o_sums[m][c], &s_tile[(own_row + m * SIZE) * S_STRIDE], S_STRIDE);
            }
        }
    }
    workgroupBarrier();
}

// Chunk c of those dims, of row r of this invocation's four.
fn o_of(r: u32, c: u32) -> vec4<f32> {
    let at = (4u * y + r) * S_STRIDE + 4u * c;
    return vec4(s_tile[at], s_tile[at + 1u], s_tile[at + 2u], s_tile[at + 3u]);
}

fn rescale(shrink: vec4<f32>) {
    for (var dims = 0u; dims < V_MATRICES; dims++) {
        put_o_sums(dims);
        for (var i = x; i < SIZE; i += WIDTH) {
            for (var r = 0u; r < 4u; r++) { // unroll
                s_tile[(4u * y + r) * S_STRIDE + i] *= shrink[r];
            }
        }
        workgroupBarrier();
        for (var c = 0u; c < V_MATRICES; c++) { // unroll
            if (dims == c) {
                for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
                    o_sums[m][c] = coopLoadT<Sums>(&s_tile[(own_row + m * SIZE) * S_STRIDE], S_STRIDE);
                }
            }
        }
    }
}

// To workgroup memory: the tile's rows of q, four rows of four dims at a time. Dims past the last are 0.
fn bring_queries() {
    for (var i = invocation; i < ROWS / 4u * Q_CHUNKS; i += WORKGROUP) {
        let c = i % Q_CHUNKS;
        let base = q_base(rows_of(tile, tile.first + 4u * (i / Q_CHUNKS)));
        for (var r = 0u; r < 4u; r++) { // unroll
            var dims = vec4(0.0);
            if (c < HEAD_CHUNKS) {
                dims = query_chunk(base[r], c);
            }
            let four = to_f16(dims);
            for (var d = 0u; d < 4u; d++) { // unroll
                q_tile[(4u * (i / Q_CHUNKS) + r) * Q_STRIDE + 4u * c + d] = four[d];
            }
        }
    }
}

fn bring_keys(j: u32, last: u32, k_base: u32) {
    for (var i = invocation; i < KEYS * Q_CHUNKS; i += WORKGROUP) {
        let c = i % Q_CHUNKS;
        var dims = vec4(0.0);
        if (c < HEAD_CHUNKS) {
            dims = key_chunk(k_base + min(j + i / Q_CHUNKS, last) * params.k_row, c);
        }
        put_dims(i / Q_CHUNKS, c, dims);
    }
}

// A value that a row may not see may be NaN, and 0 * NaN would leak: where there is an edge, NaN counts as 0.
fn bring_values(j: u32, last: u32, edge: bool, v_base: u32) {
    for (var i = invocation; i < KEYS * KV_CHUNKS; i += WORKGROUP) {
        let c = i % KV_CHUNKS;
        var dims = vec4(0.0);
        if (c < V_CHUNKS) {
            dims = value_chunk(v_base + min(j + i / KV_CHUNKS, last) * params.v_row, c);
        }
        if (edge) {
            let bits = bitcast<vec4<u32>>(dims) & vec4(0x7fffffffu);
            dims = select(dims, vec4(0.0), bits > vec4(0x7f800000u));
        }
        put_dims(i / KV_CHUNKS, c, dims);
    }
}

fn put_dims(key: u32, c: u32, dims: vec4<f32>) {
    let four = to_f16(dims);
    for (var d = 0u; d < 4u; d++) { // unroll
        kv_tile[key * KV_STRIDE + 4u * c + d] = four[d];
    }
}
