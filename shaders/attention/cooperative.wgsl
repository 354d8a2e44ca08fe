// Softmax attention with an online softmax, by matrices that subgroups multiply: factors rounded to f16, sums in f32.
//
// One workgroup owns ROWS consecutive rows of one (batch, kv head) and one range of the keys, as in tiled.wgsl. How its subgroups
// share them, what workgroup memory that takes, and when o is rescaled, is told in shared/matrix_tile.wgsl.
// Workgroup memory: what the device grants, up to 48 KiB.
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

const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
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
var<private> scale: vec4<f32>;
var<private> sum: vec4<f32>; // of this invocation's weights, each relative to row_max
var<private> weighted: vec4<f32>; // of each times (score - row_max), for the entropy

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
    take_place(local, subgroup, lane);
    scale = row_scales(own_rows(0u)) * UNIT;
    bring_queries();

    take_steps(walk_of(own_tile, split * params.split_keys, (split + 1u) * params.split_keys), k_base, v_base);

    write_rows(split);
}

// Four rows of this invocation, found again wherever they are asked for: kept, they would take 20 registers. `zero` is 0, of
// which a compiler that would keep them must not know.
fn own_rows(zero: u32) -> Rows {
    return rows_of(tile, tile.first + 4u * y + zero);
}

fn query_chunk(base: u32, c: u32) -> vec4<f32> {
    return load_q(base, c);
}

fn key_chunk(base: u32, c: u32) -> vec4<f32> {
    return load_k(base, c);
}

fn value_chunk(base: u32, c: u32) -> vec4<f32> {
    return load_v(base, c);
}

// KEYS keys from j on, none past `last`. `edge`: some row does not see some of them.
fn step(j: u32, last: u32, edge: bool, k_base: u32, v_base: u32) {
    score_keys(j, last, k_base);

    // Scale, softcap, bias, and which of the keys each row sees; the largest score.
    var s: array<vec4<f32>, OWN_KEYS>;
    var largest = row_max;
    for (var i = 0u; i < OWN_KEYS; i++) { // unroll if UNROLL
        var four = scores_of(i) * scale;
        if (SOFTCAP) {
            four = softcap(four);
        }
        if (edge) {
            four = bias_and_mask(own_rows(j >> 31u), four, j + own_key(i)).s;
        }
        s[i] = four;
        largest = max(largest, four);
    }

    // By how much what was summed so far shrinks.
    let step_down = follow_maxima(largest);
    let shrink = weight(step_down);
    sum *= shrink; // before the product with step_down, which might overflow
    weighted = shrink * weighted + step_down * sum;

    // Weights; exactly 0 where a row does not see the key.
    for (var i = 0u; i < OWN_KEYS; i++) { // unroll if UNROLL
        let below = s[i] - row_max;
        var p = weight(below);
        if (edge) {
            p = select(p, vec4(0.0), s[i] == vec4(HIDDEN));
        }
        sum += p;
        if (ENTROPY) {
            weighted += p * below;
        }
        put_weights(i, p);
    }
    add_values(shrink, j, last, edge, v_base);
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
            if (tile.first + 4u * y + r <= tile.last && dims * (SIZE / 4u) + c < V_CHUNKS) {
                finish_o(rows, r, split, dims * (SIZE / 4u) + c, o_of(r, c), sum[r]);
            }
        }
    }
    for (var r = 0u; r < 4u; r++) { // unroll
        if (x == 0u && tile.first + 4u * y + r <= tile.last) {
            finish_row(rows, r, split, row_max[r] * (1.0 / UNIT), sum[r], weighted[r] * (1.0 / UNIT));
        }
    }
}
