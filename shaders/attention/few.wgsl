// Softmax attention for few rows, as in decoding: o = softmax(scale q kT) v, one pass over the keys, KEYS of them a step.
//
// One workgroup owns ROWS consecutive rows of one (batch, kv head), as tiled.wgsl tells them, and one range of the keys. WIDTH
// neighbouring invocations share a key: invocation x reads the chunks x + c * WIDTH of four dims of k and v, each once, multiplies
// them with the same chunks of q, and keeps those of o, of each row. HEIGHT such groups take four keys each in a step, and have a
// maximum, a sum and o of their own, which are put together at the end. q is where few_q_memory.wgsl or few_q_registers.wgsl keeps it.
// Workgroup memory: 2 KiB for what passes between invocations, 16 to 32 bytes for each row of a group, and q of 8 rows. Features:
// none; subgroups where along_width_subgroup.wgsl is appended.
// Source: Dao et al., "Flash-Decoding for long-context inference", 2023.
const WIDTH: u32 = 8u;
const ROWS: u32 = 1u;
const HEAD_DIM: u32 = 64u;
const V_DIM: u32 = 64u;
const LOG_N: bool = false; // the scale depends on the row's number of visible keys
const SOFTCAP: bool = false;
const ENTROPY: bool = false;
const ROW_MASK: bool = false; // there is a bias or a mask: every step may hide a key from a row
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const WORKGROUP: u32 = 64u;
const HEIGHT: u32 = WORKGROUP / WIDTH;
const KEYS: u32 = 4u * HEIGHT;
const GROUPS: u32 = ROWS; // vec4s that sum_along_width adds up
const QUADS: u32 = (ROWS + 3u) / 4u; // fours of rows, as walk.wgsl has them,
const OF_QUAD: u32 = ROWS / QUADS; // and how many of each there are
const TOLD: u32 = ROWS / ((ROWS + 1u) / 2u); // rows told at a time: two, if there are, so that many workgroups fit a core
const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const V_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const HEAD_COLUMNS: u32 = (HEAD_CHUNKS + WIDTH - 1u) / WIDTH; // chunks of an invocation
const V_COLUMNS: u32 = (V_CHUNKS + WIDTH - 1u) / WIDTH;
const_assert WORKGROUP % WIDTH == 0u && TOLD <= HEIGHT && OF_QUAD * QUADS == ROWS && ROWS % TOLD == 0u;

// The score of a key that a row does not see, and where its maximum starts: below every score, and from each by a finite
// difference.
const HIDDEN: f32 = 1.25 * LOWEST * UNIT;
// A row's weights may be so many units above 1, before what was summed so far is made relative to its new maximum.
const HEADROOM: f32 = 8.0;

// A number for each row and each of this invocation's four keys, which are key_of's.
alias PerRow = array<vec4<f32>, ROWS>;
// Four values of V_COLUMNS chunks.
alias Values = array<array<vec4<f32>, V_COLUMNS>, 4>;

// What an invocation tells others: a vec4 of each of a few rows. Rows lie apart, so that they meet in no bank.
struct Told {
    by: array<array<vec4<f32>, WIDTH>, HEIGHT>,
    apart: vec4<f32>,
}
var<workgroup> told: array<Told, TOLD>;
// The maximum, the sum and `weighted` of each row: of each group, and of all.
struct Statistics {
    groups: array<vec4<f32>, HEIGHT>,
    all: vec4<f32>,
}
var<workgroup> statistics: array<Statistics, ROWS>;

var<private> tile: Tile;
var<private> x: u32; // place along WIDTH
var<private> y: u32; // which group
var<private> own_k: u32; // where the group's first key of the step starts, from k_base on;
var<private> own_v: u32; // and its value
var<private> o_own: array<array<vec4<f32>, V_COLUMNS>, ROWS>;
var<private> row_max: array<f32, ROWS>; // the group's largest score so far, but for HEADROOM
var<private> sum: array<f32, ROWS>; // of its weights, each relative to row_max
var<private> weighted: array<f32, ROWS>; // of each times (score - row_max), for the entropy

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
    x = local % WIDTH;
    y = local / WIDTH;
    for (var r = 0u; r < ROWS; r++) { // unroll
        row_max[r] = HIDDEN;
    }
    take_queries();

    let walk = walk_of(own_tile, split * params.split_keys, (split + 1u) * params.split_keys);
    own_k = (u32(walk.begin) + y) * params.k_row;
    own_v = (u32(walk.begin) + y) * params.v_row;
    take_steps(walk, k_base, v_base);

    write_rows(split);
}

// Chunk x + c * WIDTH of a row of q, times its scale; 0 past the row's end.
fn scaled_query(base: u32, scale: f32, c: u32) -> vec4<f32> {
    return select(vec4(0.0), load_q(base, head_chunk(c)) * (scale * UNIT), x + c * WIDTH < HEAD_CHUNKS);
}

// The chunks that an invocation reads: past the row's end, the last one, which counts for nothing.
fn head_chunk(c: u32) -> u32 {
    return min(x + c * WIDTH, HEAD_CHUNKS - 1u);
}

fn v_chunk(c: u32) -> u32 {
    return min(x + c * WIDTH, V_CHUNKS - 1u);
}

// KEYS keys from j on, none past `last`. `edge`: some row does not see some of them.
fn step(j: u32, last: u32, edge: bool, k_base: u32, v_base: u32) {
    // Scores: of this invocation's dims, then of all along WIDTH. The values are on their way meanwhile.
    var s = scores(last, k_base);
    let values = own_values(last, v_base);
    s = sum_along_width(s);

    // Softcap; bias, and which of the keys each row sees.
    if (SOFTCAP) {
        for (var r = 0u; r < ROWS; r++) { // unroll
            s[r] = softcap(s[r]);
        }
    }
    if (edge) {
        for (var quad = 0u; quad < QUADS; quad++) { // unroll
            hide(&s, quad, j);
        }
    }

    // Where a row has met a score more than HEADROOM above its maximum, that follows.
    var largest: array<f32, ROWS>;
    var grown = false;
    for (var r = 0u; r < ROWS; r++) { // unroll
        largest[r] = max(max(s[r].x, s[r].y), max(s[r].z, s[r].w));
        grown = grown || largest[r] - row_max[r] > HEADROOM;
    }
    if (grown) {
        follow(largest);
    }

    // The weights, exactly 0 where a row does not see the key.
    if (edge) {
        weigh(&s, true);
    } else {
        weigh(&s, false);
    }

    // o += weights v. A weight may be 0 because its row does not see the key, whose value may be NaN: 0 * NaN would leak.
    if (edge && any_broken(values)) {
        add_values(s, values, true);
    } else {
        add_values(s, values, false);
    }
}

// Key i of the four that this invocation's group takes in a step from j on.
fn key_of(j: u32, i: u32) -> u32 {
    return j + i * HEIGHT + y;
}

// This invocation's part of q kT. A key past `last` is that one; or another, where its place passes what a u32 holds: nothing weighs it.
fn scores(last: u32, k_base: u32) -> PerRow {
    var keys: array<array<vec4<f32>, HEAD_COLUMNS>, 4>;
    for (var i = 0u; i < 4u; i++) { // unroll
        let at = k_base + min(own_k + i * HEIGHT * params.k_row, last * params.k_row);
        for (var c = 0u; c < HEAD_COLUMNS; c++) { // unroll
            keys[i][c] = load_k(at, head_chunk(c));
        }
    }
    own_k += KEYS * params.k_row;
    var s: PerRow;
    for (var r = 0u; r < ROWS; r++) { // unroll
        for (var c = 0u; c < HEAD_COLUMNS; c++) { // unroll
            let q4 = query(r, c);
            for (var i = 0u; i < 4u; i++) { // unroll
                let k4 = keys[i][c];
                s[r][i] = fma(q4.w, k4.w, fma(q4.z, k4.z, fma(q4.y, k4.y, fma(q4.x, k4.x, s[r][i]))));
            }
        }
    }
    return s;
}

fn own_values(last: u32, v_base: u32) -> Values {
    var values: Values;
    for (var i = 0u; i < 4u; i++) { // unroll
        let at = v_base + min(own_v + i * HEIGHT * params.v_row, last * params.v_row);
        for (var c = 0u; c < V_COLUMNS; c++) { // unroll
            values[i][c] = load_v(at, v_chunk(c));
        }
    }
    own_v += KEYS * params.v_row;
    return values;
}

// Makes the scores of four rows HIDDEN where they do not see the key, of the step's from j on.
fn hide(s: ptr<function, PerRow>, quad: u32, j: u32) {
    let rows = rows_of(tile, tile.first + 4u * quad);
    for (var key = 0u; key < 4u; key++) { // unroll
        var score = vec4(0.0);
        for (var i = 0u; i < OF_QUAD; i++) { // unroll
            score[i] = (*s)[4u * quad + i][key];
        }
        score = bias_and_mask(rows, score, key_of(j, key)).s;
        for (var i = 0u; i < OF_QUAD; i++) { // unroll
            (*s)[4u * quad + i][key] = score[i];
        }
    }
}

// Raises the maxima of rows whose largest score is more than HEADROOM above, which is rare after a group's first step: what was
// summed so far shrinks.
fn follow(largest: array<f32, ROWS>) {
    for (var r = 0u; r < ROWS; r++) { // unroll
        let growth = largest[r] - row_max[r];
        let up = growth > HEADROOM;
        let step_down = select(0.0, -growth, up);
        let shrink = select(1.0, weight(vec4(step_down)).x, up);
        sum[r] *= shrink; // before the product with step_down, which might overflow
        weighted[r] = shrink * weighted[r] + step_down * sum[r];
        for (var c = 0u; c < V_COLUMNS; c++) { // unroll
            o_own[r][c] *= shrink;
        }
        row_max[r] = select(row_max[r], largest[r], up);
    }
}

// Scores become weights, and are summed up. `edge`: some may be HIDDEN.
fn weigh(s: ptr<function, PerRow>, edge: bool) {
    for (var r = 0u; r < ROWS; r++) { // unroll
        let score = (*s)[r];
        let below = score - vec4(row_max[r]);
        var weights = weight(below);
        if (edge) {
            weights = select(weights, vec4(0.0), score == vec4(HIDDEN));
        }
        (*s)[r] = weights;
        sum[r] += (weights.x + weights.y) + (weights.z + weights.w);
        if (ENTROPY) {
            let terms = weights * below;
            weighted[r] += (terms.x + terms.y) + (terms.z + terms.w);
        }
    }
}

// Whether some value is not finite, by its bits.
fn any_broken(values: Values) -> bool {
    var size = vec4(0u);
    for (var i = 0u; i < 4u; i++) { // unroll
        for (var c = 0u; c < V_COLUMNS; c++) { // unroll
            size = max(size, bitcast<vec4<u32>>(values[i][c]) & vec4(0x7fffffffu));
        }
    }
    return max(max(size.x, size.y), max(size.z, size.w)) >= 0x7f800000u;
}

// `guarded`: only of values that the row sees.
fn add_values(weights: PerRow, values: Values, guarded: bool) {
    for (var i = 0u; i < 4u; i++) { // unroll
        for (var c = 0u; c < V_COLUMNS; c++) { // unroll
            for (var r = 0u; r < ROWS; r++) { // unroll
                var value = values[i][c];
                if (guarded) {
                    value = select(vec4(0.0), value, weights[r][i] != 0.0);
                }
                o_own[r][c] = fma(vec4(weights[r][i]), value, o_own[r][c]);
            }
        }
    }
}

// The rows' results: what the groups have, each relative to a maximum of its own, is made relative to the largest of them and added
// up, by one group for each row that is told.
fn write_rows(split: u32) {
    for (var r = 0u; r < ROWS; r++) { // unroll
        if (x == 0u) {
            statistics[r].groups[y] = vec4(row_max[r], sum[r], weighted[r], 0.0);
        }
    }
    workgroupBarrier();
    for (var r = y; r < ROWS; r += HEIGHT) {
        let all = all_groups(r);
        if (x == 0u) {
            statistics[r].all = all;
        }
    }
    workgroupBarrier();
    for (var r = 0u; r < ROWS; r++) { // unroll
        let shrink = weight(vec4(row_max[r] - statistics[r].all.x));
        for (var c = 0u; c < V_COLUMNS; c++) { // unroll
            o_own[r][c] *= shrink;
        }
    }
    for (var part = 0u; part < ROWS / TOLD; part++) { // unroll
        let r = TOLD * part + y % TOLD;
        let rows = rows_of(tile, tile.first + r);
        let all = statistics[r].all;
        let own = y < TOLD && tile.first + r <= tile.last;
        for (var c = 0u; c < V_COLUMNS; c++) { // unroll
            workgroupBarrier();
            for (var i = 0u; i < TOLD; i++) { // unroll
                told[i].by[y][x] = o_own[TOLD * part + i][c];
            }
            workgroupBarrier();
            if (own && x + c * WIDTH < V_CHUNKS) {
                var o4 = told[y].by[0][x];
                for (var group = 1u; group < HEIGHT; group++) {
                    o4 += told[y].by[group][x];
                }
                finish_o(rows, 0u, split, x + c * WIDTH, o4, all.y);
            }
        }
        if (own && x == 0u) {
            finish_row(rows, 0u, split, all.x * (1.0 / UNIT), all.y, all.z * (1.0 / UNIT));
        }
    }
}

// Maximum, sum and `weighted` of row r, of all groups.
fn all_groups(r: u32) -> vec4<f32> {
    var all = vec4(HIDDEN, 0.0, 0.0, 0.0);
    for (var group = 0u; group < HEIGHT; group++) {
        all.x = max(all.x, statistics[r].groups[group].x);
    }
    for (var group = 0u; group < HEIGHT; group++) {
        let own = statistics[r].groups[group];
        let step_down = own.x - all.x;
        let shrink = weight(vec4(step_down)).x;
        all.y += shrink * own.y;
        all.z += shrink * own.z + step_down * (shrink * own.y); // the product that might overflow comes last
    }
    return all;
}
