// Softmax attention with an online softmax, by matrices that subgroups multiply: factors rounded to f16, sums in f32.
//
// One workgroup owns ROWS consecutive rows of one (batch, kv head) and one range of the keys, as in tiled.wgsl; each subgroup owns
// OWN_ROWS of them and their o, in matrices. q stays in workgroup memory; k and v pass through one tile there, after each other.
// Scores come out of their matrices through workgroup memory, for only there is it known which number stands where; WIDTH
// invocations of the subgroup share four rows of them, and leave the weights in f16. o is in units of exp2(row_max); row_max follows
// the largest score only when that is more than GROWTH above it, so that o is seldom rescaled, which takes it through workgroup
// memory, and no weight exceeds 2^GROWTH. Rows of tiles are longer than they need be, to lie in different banks.
// Workgroup memory: 2 * (ROWS * Q_STRIDE + KEYS * KV_STRIDE + ROWS * P_STRIDE) + 4 * (ROWS * S_STRIDE + SUBGROUPS) bytes.
// Features: subgroups, f16, cooperative matrices.
// Source: Dao, "FlashAttention-2", 2023, algorithm 1.
const SUBGROUP: u32 = 32u; // invocations in a subgroup
const SUBGROUPS: u32 = 4u;
const KEYS: u32 = 32u;
const HEAD_DIM: u32 = 64u;
const V_DIM: u32 = 64u;
const UNROLL: bool = true; // what an invocation has of a step's scores is few
const LOG_N: bool = false; // the scale depends on the row's number of visible keys
const SOFTCAP: bool = false;
const ENTROPY: bool = false;
const ROW_MASK: bool = false; // there is a bias or a mask: every step may hide a key from a row
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const WORKGROUP: u32 = SUBGROUP * SUBGROUPS;
const OWN_ROWS: u32 = 16u;
const ROWS: u32 = OWN_ROWS * SUBGROUPS;
const WIDTH: u32 = SUBGROUP / 4u; // invocations that share four rows
const GROUPS: u32 = 1u;
const OWN_KEYS: u32 = KEYS / WIDTH; // of an invocation in a step
const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const V_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const ROW_MATRICES: u32 = OWN_ROWS / SIZE;
const KEY_MATRICES: u32 = KEYS / SIZE;
const HEAD_MATRICES: u32 = (HEAD_DIM + SIZE - 1u) / SIZE;
const V_MATRICES: u32 = (V_DIM + SIZE - 1u) / SIZE;
const Q_CHUNKS: u32 = HEAD_MATRICES * SIZE / 4u; // with those that are 0
const KV_CHUNKS: u32 = V_MATRICES * SIZE / 4u;
const Q_STRIDE: u32 = 4u * Q_CHUNKS + 8u;
const KV_STRIDE: u32 = 4u * max(Q_CHUNKS, KV_CHUNKS) + 8u;
const S_STRIDE: u32 = KEYS + 4u;
const P_STRIDE: u32 = KEYS + 8u;
const GROWTH: f32 = 8.0;
const LOG2_E: f32 = 1.4426950408889634;
const LN_2: f32 = 0.6931471805599453;
// Far below a score that is seen: what no row sees has this one.
const HIDDEN: f32 = 4.0 * LOWEST;
const_assert SUBGROUP % 4u == 0u && KEYS % WIDTH == 0u && KEYS % SIZE == 0u && OWN_ROWS % SIZE == 0u;

var<workgroup> q_tile: array<f16, ROWS * Q_STRIDE>; // [row, dim]
var<workgroup> kv_tile: array<f16, KEYS * KV_STRIDE>; // [key, dim]
var<workgroup> p_tile: array<f16, ROWS * P_STRIDE>; // [row, key]
var<workgroup> s_tile: array<f32, ROWS * S_STRIDE>; // [row, key]; or SIZE dims of o
var<workgroup> grown: array<u32, SUBGROUPS>; // whether a maximum did in this step

// A number for each of four rows.
alias PerRow = array<vec4<f32>, GROUPS>;

var<private> tile: Tile;
var<private> invocation: u32;
var<private> x: u32; // along WIDTH
var<private> y: u32; // four rows of the tile
var<private> own_row: u32; // the subgroup's first
var<private> scale: vec4<f32>;
var<private> row_max: vec4<f32>;
var<private> sum: vec4<f32>; // of this invocation's exp2(score - row_max)
var<private> weighted: vec4<f32>; // of exp2(score - row_max) * (score - row_max), for the entropy
var<private> o_sums: array<array<Sums, V_MATRICES>, ROW_MATRICES>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    if (workgroup >= params.end_workgroup) {
        return;
    }
    let split = workgroup % params.splits;
    let tiles = workgroup / params.splits;
    let own_tile = tile_of(tiles / params.row_tiles, tiles % params.row_tiles, ROWS);
    let k_base = params.k_start + own_tile.batch * params.k_batch + own_tile.kv_head * params.k_head;
    let v_base = params.v_start + own_tile.batch * params.v_batch + own_tile.kv_head * params.v_head;
    tile = own_tile;
    invocation = local;
    x = lane % WIDTH;
    y = subgroup * (OWN_ROWS / 4u) + lane / WIDTH;
    own_row = subgroup * OWN_ROWS;
    scale = row_scales(own_rows(0u)) * select(LOG2_E, 1.0, SOFTCAP || ROW_MASK);
    row_max = vec4(LOWEST * LOG2_E);
    for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
        for (var c = 0u; c < V_MATRICES; c++) { // unroll
            o_sums[m][c] = Sums();
        }
    }
    bring_queries();

    take_steps(walk_of(own_tile, split * params.split_keys, (split + 1u) * params.split_keys), k_base, v_base);

    write_rows(split);
}

// Four rows of this invocation, found again wherever they are asked for: kept, they would take 20 registers. `zero` is 0, of
// which a compiler that would keep them must not know.
fn own_rows(zero: u32) -> Rows {
    return rows_of(tile, tile.first + 4u * y + zero);
}

// KEYS keys from j on, none past `last`. `edge`: some row does not see some of them.
fn step(j: u32, last: u32, edge: bool, k_base: u32, v_base: u32) {
    // Scores: q kT. The tile holds the values of the step before until all have multiplied them.
    workgroupBarrier();
    bring_keys(j, last, k_base);
    workgroupBarrier();
    multiply_keys();
    workgroupBarrier();

    // Scale, softcap, bias, and which of the keys each row sees; the largest score.
    var s: array<vec4<f32>, OWN_KEYS>;
    var largest = PerRow(row_max);
    for (var i = 0u; i < OWN_KEYS; i++) { // unroll if UNROLL
        let at = 4u * y * S_STRIDE + x + i * WIDTH;
        var four = vec4(s_tile[at], s_tile[at + S_STRIDE], s_tile[at + 2u * S_STRIDE], s_tile[at + 3u * S_STRIDE]) * scale;
        if (SOFTCAP) {
            four = softcap(four);
        }
        if (edge) {
            let scored = bias_and_mask(own_rows(j >> 31u), four, j + x + i * WIDTH);
            four = select(vec4(HIDDEN), scored.s, scored.see);
        }
        if (SOFTCAP || ROW_MASK) {
            four *= LOG2_E;
        }
        s[i] = four;
        largest[0u] = max(largest[0u], four);
    }

    // By how much what was summed so far shrinks, if the largest score is far above the row's maximum.
    let new_max = largest_along_width(largest)[0u];
    let grew = new_max > row_max + vec4(GROWTH);
    let step_down = select(vec4(0.0), row_max - new_max, grew);
    let shrink = exp2(step_down);
    row_max = select(row_max, new_max, grew);
    weighted = shrink * (weighted + step_down * sum);
    sum *= shrink;
    let any_grew = subgroupAny(any(grew));
    if (x == 0u && 4u * y == own_row) {
        grown[own_row / OWN_ROWS] = u32(any_grew);
    }

    // Weights; exactly 0 where a row does not see the key.
    for (var i = 0u; i < OWN_KEYS; i++) { // unroll if UNROLL
        let below = s[i] - row_max;
        var p = exp2(below);
        if (edge) {
            p = select(p, vec4(0.0), below < vec4(LOWEST));
        }
        sum += p;
        if (ENTROPY) {
            weighted += p * below;
        }
        for (var r = 0u; r < 4u; r++) { // unroll
            p_tile[(4u * y + r) * P_STRIDE + x + i * WIDTH] = f16(p[r]);
        }
    }
    bring_values(j, last, edge, v_base);

    // o = shrink * o + weights v.
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

// The tile's results; what the invocations along WIDTH have summed each for itself is added up.
fn write_rows(split: u32) {
    let rows = own_rows(split >> 31u);
    sum = sum_along_width(PerRow(sum))[0u];
    if (ENTROPY) {
        weighted = sum_along_width(PerRow(weighted))[0u];
    }
    for (var dims = 0u; dims < V_MATRICES; dims++) {
        put_o_sums(dims);
        for (var i = x; i < SIZE; i += WIDTH) {
            let r = i / (SIZE / 4u);
            let c = i % (SIZE / 4u);
            let at = (4u * y + r) * S_STRIDE + 4u * c;
            if (tile.first + 4u * y + r <= tile.last && dims * (SIZE / 4u) + c < V_CHUNKS) {
                let o4 = vec4(s_tile[at], s_tile[at + 1u], s_tile[at + 2u], s_tile[at + 3u]);
                finish_o(rows, r, split, dims * (SIZE / 4u) + c, o4, sum[r]);
            }
        }
    }
    for (var r = 0u; r < 4u; r++) { // unroll
        if (x == 0u && tile.first + 4u * y + r <= tile.last) {
            finish_row(rows, r, split, row_max[r] * LN_2, sum[r], weighted[r] * LN_2);
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
                dims = load_q(base[r], c);
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
            dims = load_k(k_base + min(j + i / Q_CHUNKS, last) * params.k_row, c);
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
            dims = load_v(v_base + min(j + i / KV_CHUNKS, last) * params.v_row, c);
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
