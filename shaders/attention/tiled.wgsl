// Softmax attention with an online softmax, tiled: o = softmax(scale q kT) v, one pass over the keys, KEYS of them a step.
//
// One workgroup owns ROWS consecutive rows of one (batch, kv head) and one range of the keys; the rows are the queries of the
// heads that share the kv head, head after head. How its WIDTH x HEIGHT invocations share a tile, and what workgroup memory
// that takes, is told in shared/tile.wgsl and tile_keys.wgsl: scores, weights and o stay in registers.
// Workgroup memory: at most 16 KiB with the SLAB of 16 or 8 that every device holds. Features: none; subgroups where along_width_subgroup.wgsl is appended.
// Source: Dao, "FlashAttention-2", 2023, algorithm 1.
const WIDTH: u32 = 16u;
const HEIGHT: u32 = 16u;
const GROUPS: u32 = 2u;
const COLUMNS: u32 = 1u;
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
const LOG2_E: f32 = 1.4426950408889634;
// Scores are in units of log2, the factor being part of the scale. Where more follows the scale they stay natural until the
// largest is subtracted: a large score, as a bias makes it, would be rounded once more by the factor.
const NATURAL: bool = SOFTCAP || ROW_MASK;
const UNIT: f32 = select(LOG2_E, 1.0, NATURAL);
// The score of a key that a row does not see, and where its maximum starts: below every score, and from each by a finite
// difference.
const HIDDEN: f32 = 1.25 * LOWEST * UNIT;

var<private> tile: Tile;
var<private> scale: PerRow;
var<private> row_max: PerRow;
var<private> sum: PerRow; // of this invocation's weights, each relative to row_max
var<private> weighted: PerRow; // of each times (score - row_max), for the entropy
var<private> q_at: vec4<u32>; // where the four rows of q start that this invocation brings to workgroup memory

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
        scale[g] = row_scales(own_rows(g, 0u)) * UNIT;
        row_max[g] = vec4(HIDDEN);
    }
    q_at = q_base(rows_of(tile, tile.first + 4u * (local / SLAB_CHUNKS)));

    take_steps(walk_of(own_tile, split * params.split_keys, (split + 1u) * params.split_keys), k_base, v_base);

    write_rows(split);
}

// Four rows of this invocation, found again wherever they are asked for: kept, they would take 20 registers. `zero` is 0, of
// which a compiler that would keep them must not know.
fn own_rows(g: u32, zero: u32) -> Rows {
    return rows_of(tile, tile.first + 4u * (y * GROUPS + g) + zero);
}

fn queries(c: u32) -> mat4x4<f32> {
    return transpose(mat4x4(load_q(q_at.x, c), load_q(q_at.y, c), load_q(q_at.z, c), load_q(q_at.w, c)));
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

    // Scale, softcap, bias, and which of the keys each row sees; the largest score.
    var largest = row_max;
    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var i = 0u; i < 4u; i++) { // unroll
            s[i][g] *= scale[g];
            if (SOFTCAP) {
                s[i][g] = softcap(s[i][g]);
            }
            if (edge) {
                s[i][g] = bias_and_mask(own_rows(g, j >> 31u), s[i][g], j + 4u * x + i).s;
            }
            largest[g] = max(largest[g], s[i][g]);
        }
    }

    // The row's new maximum is that of all invocations along WIDTH.
    largest = largest_along_width(largest);
    for (var g = 0u; g < GROUPS; g++) { // unroll
        // By how much what was summed so far shrinks; the weights, exactly 0 where a row does not see the key.
        let step_down = row_max[g] - largest[g];
        let shrink = weight(step_down);
        row_max[g] = largest[g];
        sum[g] *= shrink; // before the product with step_down, which might overflow
        weighted[g] = shrink * weighted[g] + step_down * sum[g];
        for (var r = 0u; r < 4u; r++) { // unroll
            for (var c = 0u; c < COLUMNS; c++) { // unroll
                o_tile[4u * g + r][c] *= shrink[r];
            }
        }
        for (var i = 0u; i < 4u; i++) { // unroll
            let below = s[i][g] - largest[g];
            let hidden = s[i][g] == vec4(HIDDEN);
            s[i][g] = weight(below);
            if (edge) {
                s[i][g] = select(s[i][g], vec4(0.0), hidden);
            }
            sum[g] += s[i][g];
            if (ENTROPY) {
                weighted[g] += s[i][g] * below;
            }
        }
    }

    add_values(s, j, last, edge, v_base);
}

// e to the power of a score below the largest.
fn weight(below: vec4<f32>) -> vec4<f32> {
    if (NATURAL) {
        return exp(below);
    }
    return exp2(below);
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
            if (tile.first + 4u * (y * GROUPS + g) + r <= tile.last) {
                for (var c = 0u; c < COLUMNS; c++) { // unroll
                    if (x + c * WIDTH < V_CHUNKS) {
                        finish_o(rows, r, split, x + c * WIDTH, o_tile[4u * g + r][c], sum[g][r]);
                    }
                }
                if (x == 0u) {
                    finish_row(rows, r, split, row_max[g][r] * (1.0 / UNIT), sum[g][r], weighted[g][r] * (1.0 / UNIT));
                }
            }
        }
    }
}
