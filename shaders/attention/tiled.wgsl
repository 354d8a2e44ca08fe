// Softmax attention with an online softmax, tiled: o = softmax(scale q kT) v, one pass over the keys, KEYS of them a step.
//
// One workgroup owns ROWS consecutive rows of one (batch, kv head) and one range of the keys; the rows are the queries of the
// heads that share the kv head, head after head. How its WIDTH x HEIGHT invocations share a tile, and what workgroup memory
// that takes, is told in shared/tile.wgsl and tile_keys.wgsl: scores, weights and o stay in registers.
// Workgroup memory: at most 16 KiB with the SLAB of 16 or 8 that every device holds. Features: none; subgroups where along_width_subgroup.wgsl is appended.
// Source: Dao, "FlashAttention-2", 2023, algorithm 1.
const WIDTH: u32 = 8u;
const HEIGHT: u32 = 16u;
const GROUPS: u32 = 2u;
const COLUMNS: u32 = 2u;
const OWN_KEYS: u32 = 8u;
const SLAB: u32 = 16u;
const HEAD_DIM: u32 = 64u;
const V_DIM: u32 = 64u;
const LOG_N: bool = false; // the scale depends on the row's number of visible keys
const SOFTCAP: bool = false;
const ENTROPY: bool = false;
const ROW_MASK: bool = false; // there is a bias or a mask: every step may hide a key from a row
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const HEAD_SLABS: u32 = (HEAD_DIM + SLAB - 1u) / SLAB;
const V_CHUNKS: u32 = (V_DIM + 3u) / 4u;
// The score of a key that a row does not see, and where its maximum starts: below every score, and from each by a finite
// difference.
const HIDDEN: f32 = 1.25 * LOWEST * UNIT;
// A row's weights may be so many units above 1, before what was summed so far is made relative to its new maximum.
const HEADROOM: f32 = 8.0;

// Of each row, as registers are what a step has least of: written by the invocation at x = 0.
var<workgroup> row_max: array<array<vec4<f32>, HEIGHT>, GROUPS>; // the largest score so far, but for HEADROOM
var<workgroup> first_visible: array<array<vec4<i32>, HEIGHT>, GROUPS>; // the first key that each row sees by position,
var<workgroup> past_visible: array<array<vec4<i32>, HEIGHT>, GROUPS>; // and one past the last

var<private> tile: Tile;
var<private> sum: PerRow; // of this invocation's weights, each relative to row_max
var<private> weighted: PerRow; // of each times (score - row_max), for the entropy
// Of the rows of q that this invocation brings to workgroup memory: where they start, and the scale of their scores.
var<private> q_at: array<vec4<u32>, LEFT_PARTS>;
var<private> scale: array<vec4<f32>, LEFT_PARTS>;

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
    let split = workgroup % params.splits;
    let tiles = workgroup / params.splits;
    let own_tile = tile_of(tiles / params.row_tiles, tiles % params.row_tiles, ROWS);
    let k_base = params.k_start + own_tile.batch * params.k_batch + own_tile.kv_head * params.k_head;
    let v_base = params.v_start + own_tile.batch * params.v_batch + own_tile.kv_head * params.v_head;
    tile = own_tile;
    take_place(local);
    for (var g = 0u; g < GROUPS; g++) { // unroll
        if (x == 0u) {
            let rows = own_rows(g, 0u);
            row_max[g][y] = vec4(HIDDEN);
            first_visible[g][y] = rows.lo;
            past_visible[g][y] = rows.hi;
        }
    }
    for (var part = 0u; part < LEFT_PARTS; part++) { // unroll
        let rows = rows_of(tile, tile.first + 4u * left_group(part));
        q_at[part] = q_base(rows);
        scale[part] = row_scales(rows) * UNIT;
    }
    start_keys();

    take_steps(walk_of(own_tile, split * params.split_keys, (split + 1u) * params.split_keys), k_base, v_base);

    write_rows(split);
}

// Four rows of this invocation, found again wherever they are asked for: kept, they would take 20 registers. `zero` is 0, of
// which a compiler that would keep them must not know.
fn own_rows(g: u32, zero: u32) -> Rows {
    return rows_of(tile, tile.first + row_of(g) + zero);
}

fn queries(part: u32, c: u32) -> mat4x4<f32> {
    let at = q_at[part];
    let factor = scale[part];
    return transpose(mat4x4(
        load_q(at.x, c) * factor.x,
        load_q(at.y, c) * factor.y,
        load_q(at.z, c) * factor.z,
        load_q(at.w, c) * factor.w,
    ));
}

fn key_chunk(base: u32, c: u32) -> vec4<f32> {
    return load_k(base, c);
}

fn value_chunk(base: u32, c: u32) -> vec4<f32> {
    return load_v(base, c);
}

// KEYS keys from j on, none past `last`. `edge`: some row does not see some of them.
fn step(j: u32, last: u32, edge: bool, k_base: u32, v_base: u32) {
    var s = scores(j, last, k_base);

    // Softcap; bias, and which of the keys each row sees.
    if (SOFTCAP) {
        for (var g = 0u; g < GROUPS; g++) { // unroll
            for (var i = 0u; i < OWN_KEYS; i++) { // unroll
                s[i][g] = softcap(s[i][g]);
            }
        }
    }
    if (edge) {
        for (var g = 0u; g < GROUPS; g++) { // unroll
            hide(&s, g, j);
        }
    }

    // The largest score, of all invocations along WIDTH, and what follows from it for the row's maximum.
    var top: PerRow;
    for (var g = 0u; g < GROUPS; g++) { // unroll
        top[g] = row_max[g][y];
    }
    var largest = top;
    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var i = 0u; i < OWN_KEYS; i++) { // unroll
            largest[g] = max(largest[g], s[i][g]);
        }
    }
    largest = largest_along_width(largest);
    // What follows writes row_max: all along WIDTH have read it, as each has told what it found.
    for (var g = 0u; g < GROUPS; g++) { // unroll
        top[g] = followed(top[g], largest[g], g);
    }

    // The weights, exactly 0 where a row does not see the key.
    if (edge) {
        weigh(&s, top, true);
    } else {
        weigh(&s, top, false);
    }

    add_values(s, j, last, edge, v_base);
}

// Scores become weights, and are summed up. `edge`: some may be HIDDEN.
fn weigh(s: ptr<function, PerScore>, top: PerRow, edge: bool) {
    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var i = 0u; i < OWN_KEYS; i++) { // unroll
            let score = (*s)[i][g];
            let below = score - top[g];
            var weights = weight(below);
            if (edge) {
                weights = select(weights, vec4(0.0), score == vec4(HIDDEN));
            }
            (*s)[i][g] = weights;
            sum[g] += weights;
            if (ENTROPY) {
                weighted[g] += weights * below;
            }
        }
    }
}

// Makes the scores of group g HIDDEN where a row does not see the key, of the step's from j on.
fn hide(s: ptr<function, PerScore>, g: u32, j: u32) {
    if (ROW_MASK) {
        for (var i = 0u; i < OWN_KEYS; i++) { // unroll
            (*s)[i][g] = bias_and_mask(own_rows(g, j >> 31u), (*s)[i][g], j + key_of(i)).s;
        }
    } else {
        // Each bound by itself: most edges have but the right one.
        let past = past_visible[g][y] - vec4(i32(j + x));
        for (var i = 0u; i < OWN_KEYS; i++) { // unroll
            (*s)[i][g] = select(vec4(HIDDEN), (*s)[i][g], vec4(i32(i * WIDTH)) < past);
        }
        if (left_edge) {
            let first = first_visible[g][y] - vec4(i32(j + x));
            for (var i = 0u; i < OWN_KEYS; i++) { // unroll
                (*s)[i][g] = select((*s)[i][g], vec4(HIDDEN), vec4(i32(i * WIDTH)) < first);
            }
        }
    }
}

// The maxima of group g, raised where a row has met a score more than HEADROOM above its own, which is rare after its first step:
// what was summed so far shrinks.
fn followed(top: vec4<f32>, largest: vec4<f32>, g: u32) -> vec4<f32> {
    let growth = largest - top;
    let grown = growth > vec4(HEADROOM);
    if (!any(grown)) {
        return top;
    }
    let step_down = select(vec4(0.0), -growth, grown);
    let shrink = select(vec4(1.0), weight(step_down), grown);
    sum[g] *= shrink; // before the product with step_down, which might overflow
    weighted[g] = shrink * weighted[g] + step_down * sum[g];
    for (var r = 0u; r < 4u; r++) { // unroll
        for (var c = 0u; c < COLUMNS; c++) { // unroll
            o_tile[4u * g + r][c] *= shrink[r];
        }
    }
    let raised = select(top, largest, grown);
    if (x == 0u) {
        row_max[g][y] = raised;
    }
    return raised;
}

// The tile's results; what the invocations along WIDTH have summed each for itself is added up.
fn write_rows(split: u32) {
    sum = sum_along_width(sum);
    if (ENTROPY) {
        weighted = sum_along_width(weighted);
    }
    for (var g = 0u; g < GROUPS; g++) { // unroll
        let rows = own_rows(g, split >> 31u);
        for (var r = 0u; r < 4u; r++) { // unroll
            if (tile.first + row_of(g) + r <= tile.last) {
                for (var c = 0u; c < COLUMNS; c++) { // unroll
                    if (x + c * WIDTH < V_CHUNKS) {
                        finish_o(rows, r, split, x + c * WIDTH, o_tile[4u * g + r][c], sum[g][r]);
                    }
                }
                if (x == 0u) {
                    finish_row(rows, r, split, row_max[g][y][r] * (1.0 / UNIT), sum[g][r], weighted[g][r] * (1.0 / UNIT));
                }
            }
        }
    }
}
