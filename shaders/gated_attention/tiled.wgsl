// Gated attention, tiled: o = u * (A v) with A = relu(scale q kT)^2 / divisor or softmax(scale q kT), one pass over the keys,
// KEYS of them a step. In mixed chunks A reaches no further than a chunk of tokens, and the chunks' states add the rest.
//
// One workgroup owns ROWS consecutive rows of one (batch, kv head), one range of the keys, and V_BLOCK chunks of four value
// dims; workgroups with other value dims compute the same scores again. The rows are those of shared/walk.wgsl. How the
// WIDTH x HEIGHT invocations share a tile, and what workgroup memory that takes, is told in shared/tile.wgsl: all differs from
// attention/tiled.wgsl only in what becomes of the scores, `weights`. Those of relu squared need no word between invocations.
// Scores of a softmax are in units of log2, so that their exponential is exp2.
// Workgroup memory: at most 16 KiB with the slabs of 16 or 8 that every device holds. Features: none; subgroups where
// along_width_subgroup.wgsl is appended.
// Source: Hua et al., "Transformer Quality in Linear Time", 2022, sections 3 and 4.
const WIDTH: u32 = 16u;
const HEIGHT: u32 = 8u;
const GROUPS: u32 = 2u;
const COLUMNS: u32 = 2u;
const OWN_KEYS: u32 = 8u;
const SLAB: u32 = 16u;
const KEY_DIM: u32 = 128u;
const V_DIM: u32 = 1536u;
const V_BLOCK: u32 = 32u;
const SOFTMAX: bool = false; // relu squared otherwise
const LOG_N: bool = false; // the scale grows with log n, n being the row's number of visible keys
const DIVISOR: u32 = 2u; // see divisor.wgsl

const ROW_MASK: bool = false; // rows see keys by position alone
const ROW_SUMS: bool = DIVISOR == DIVIDE_BY_SUM;
const KEY_CHUNKS: u32 = (KEY_DIM + 3u) / 4u;
const HEAD_CHUNKS: u32 = KEY_CHUNKS;
const HEAD_SLABS: u32 = (KEY_DIM + SLAB - 1u) / SLAB;
const V_CHUNKS: u32 = V_BLOCK; // of the block
const O_CHUNKS: u32 = (V_DIM + 3u) / 4u; // of a row of v and o
const LOG2_E: f32 = 1.4426950408889634;
const LN_2: f32 = 0.6931471805599453;
const UNIT: f32 = LOG2_E; // of the scores of a softmax
// The score of a key that a row does not see, and where its maximum starts: below every score, and from each by a finite
// difference.
const HIDDEN: f32 = 1.25 * LOWEST * UNIT;
const_assert KEY_DIM >= 1u && V_DIM >= 1u && V_BLOCK >= 1u && V_BLOCK <= O_CHUNKS;

// A softmax's weights may be so many units above 1, before what was summed so far is made relative to its new maximum.
const HEADROOM: f32 = 8.0;

var<workgroup> first_visible: array<array<vec4<i32>, HEIGHT>, GROUPS>; // the keys that each row sees, and
var<workgroup> past_visible: array<array<vec4<i32>, HEIGHT>, GROUPS>; // one past the last

var<private> tile: Tile;
var<private> row_max: PerRow; // the largest score so far, but for HEADROOM, if SOFTMAX
var<private> sum: PerRow; // of this invocation's weights, if ROW_SUMS
// Of the rows of q that this invocation brings to workgroup memory: where they start, and the scale of their scores.
var<private> q_at: array<vec4<u32>, LEFT_PARTS>;
var<private> scale: array<vec4<f32>, LEFT_PARTS>;
var<private> v_first: u32; // the block's first chunk of value dims

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    if (workgroup >= params.end_workgroup) {
        return;
    }
    let block = params.first_block + workgroup % params.blocks;
    let split = (workgroup / params.blocks) % params.splits;
    let tiles = workgroup / params.blocks / params.splits;
    let own_tile = row_tile(tiles / params.row_tiles, tiles % params.row_tiles);
    if (own_tile.first > own_tile.last) {
        return; // the last chunk is short
    }
    let k_base = params.k_start + own_tile.batch * params.k_batch + own_tile.kv_head * params.k_head;
    let v_base = params.v_start + own_tile.batch * params.v_batch + own_tile.kv_head * params.v_head;
    tile = own_tile;
    take_place(local);
    // The last block starts early enough to be whole.
    v_first = min(block * V_BLOCK, O_CHUNKS - V_BLOCK);
    for (var g = 0u; g < GROUPS; g++) { // unroll
        row_max[g] = vec4(HIDDEN);
        if (x == 0u) {
            let rows = own_rows(g, 0u);
            first_visible[g][y] = rows.lo;
            past_visible[g][y] = rows.hi;
        }
    }
    for (var part = 0u; part < LEFT_PARTS; part++) { // unroll
        let rows = rows_of(tile, tile.first + 4u * left_group(part));
        q_at[part] = q_base(rows);
        scale[part] = row_scales(rows);
    }
    start_keys();

    take_steps(walk_of(own_tile, first_key(own_tile, split), end_key(split)), k_base, v_base);
    add_other_chunks(own_tile);

    write_rows(split, block * V_BLOCK);
}

// Four rows of this invocation, found again wherever they are asked for: kept, they would take 20 registers. `zero` is 0, of
// which a compiler that would keep them must not know.
fn own_rows(g: u32, zero: u32) -> Rows {
    return rows_of(tile, tile.first + row_of(g) + zero);
}

fn row_scales(rows: Rows) -> vec4<f32> {
    var scales = vec4(params.scale);
    if (LOG_N) {
        scales *= log(max(visible_keys(rows), vec4(f32(params.scale_floor))));
    }
    return scales * select(1.0, LOG2_E, SOFTMAX);
}

// With maps, a head of k is one of q.
fn queries(part: u32, c: u32) -> mat4x4<f32> {
    let at = q_at[part];
    let factor = scale[part];
    return transpose(mat4x4(
        affine(load_q(at.x, c), Q_MAP, tile.kv_head, c) * factor.x,
        affine(load_q(at.y, c), Q_MAP, tile.kv_head, c) * factor.y,
        affine(load_q(at.z, c), Q_MAP, tile.kv_head, c) * factor.z,
        affine(load_q(at.w, c), Q_MAP, tile.kv_head, c) * factor.w,
    ));
}

fn key_chunk(base: u32, c: u32) -> vec4<f32> {
    return affine(load_k(base, c), K_MAP, tile.kv_head, c);
}

fn value_chunk(base: u32, c: u32) -> vec4<f32> {
    return load_v(base, v_first + c);
}

// KEYS keys from j on, none past `last`. `edge`: some row does not see some of them.
fn step(j: u32, last: u32, edge: bool, k_base: u32, v_base: u32) {
    var s = scores(j, last, k_base);
    if (edge) {
        for (var g = 0u; g < GROUPS; g++) { // unroll
            // Each bound by itself: most edges have but the right one.
            let past = past_visible[g][y] - vec4(i32(j + x));
            for (var i = 0u; i < OWN_KEYS; i++) { // unroll
                s[i][g] = select(vec4(HIDDEN), s[i][g], vec4(i32(i * WIDTH)) < past);
            }
            if (left_edge) {
                let first = first_visible[g][y] - vec4(i32(j + x));
                for (var i = 0u; i < OWN_KEYS; i++) { // unroll
                    s[i][g] = select(s[i][g], vec4(HIDDEN), vec4(i32(i * WIDTH)) < first);
                }
            }
        }
    }
    if (SOFTMAX) {
        follow_maxima(s);
    }
    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var i = 0u; i < OWN_KEYS; i++) { // unroll
            s[i][g] = weights(s[i][g], row_max[g], edge);
            if (ROW_SUMS) {
                sum[g] += s[i][g];
            }
        }
    }
    add_values(s, j, last, edge, v_base);
}

// A row's new maximum is that of all invocations along WIDTH, where it lies more than HEADROOM above its own, which is rare after the
// first step: what was summed so far shrinks.
fn follow_maxima(s: PerScore) {
    var largest = row_max;
    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var i = 0u; i < OWN_KEYS; i++) { // unroll
            largest[g] = max(largest[g], s[i][g]);
        }
    }
    largest = largest_along_width(largest);
    var grown = false;
    for (var g = 0u; g < GROUPS; g++) { // unroll
        grown = grown || any(largest[g] > row_max[g] + HEADROOM);
    }
    if (grown) {
        for (var g = 0u; g < GROUPS; g++) { // unroll
            let raised = select(row_max[g], largest[g], largest[g] > row_max[g] + HEADROOM);
            // A row that keeps its maximum keeps every bit.
            let shrink = select(exp2(row_max[g] - raised), vec4(1.0), row_max[g] == raised);
            row_max[g] = raised;
            sum[g] *= shrink;
            for (var r = 0u; r < 4u; r++) { // unroll
                for (var c = 0u; c < COLUMNS; c++) { // unroll
                    o_tile[4u * g + r][c] *= shrink[r];
                }
            }
        }
    }
}

// Of a key, exactly 0 where a row does not see it.
fn weights(s: vec4<f32>, largest: vec4<f32>, edge: bool) -> vec4<f32> {
    if (!SOFTMAX) {
        return s * max(s, vec4(0.0)); // NaN stays
    }
    let weight = exp2(s - largest);
    if (edge) {
        return select(weight, vec4(0.0), s == vec4(HIDDEN));
    }
    return weight;
}

// The tile's results, of chunks from `first` on; those before it belong to the block before. What the invocations along WIDTH have
// summed each for itself is added up.
fn write_rows(split: u32, first: u32) {
    if (ROW_SUMS) {
        sum = sum_along_width(sum);
    }
    for (var g = 0u; g < GROUPS; g++) { // unroll
        let rows = own_rows(g, split >> 31u);
        let n = visible_keys(rows);
        for (var r = 0u; r < 4u; r++) { // unroll
            if (tile.first + row_of(g) + r <= tile.last) {
                for (var c = 0u; c < COLUMNS; c++) { // unroll
                    let chunk = v_first + x + c * WIDTH;
                    if (x + c * WIDTH < V_CHUNKS && chunk >= first) {
                        finish_o(rows.batch, rows.head[r], rows.row[r], split, chunk, o_tile[4u * g + r][c], n[r], sum[g][r]);
                    }
                }
                if (x == 0u && v_first == 0u) {
                    finish_row(rows.batch, rows.head[r], rows.row[r], split, row_max[g][r] * LN_2, n[r], sum[g][r]);
                }
            }
        }
    }
}
