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
const OWN_ROWS: u32 = 16u; // of a subgroup
const VALUE_KEYS: u32 = 4u; // of each value that an invocation brings, in fours of dims
const AHEAD: bool = true; // what is brought is fetched before a step's products: it is few
const UNROLL: bool = true; // what an invocation has of a step's scores is few
const UNROLL_VALUES: bool = true; // the matrices of a step's values are few
const Q_F16: bool = false; // q is stored in f16, and is copied as it is
const K_F16: bool = false;
const V_F16: bool = false;
alias KeyFour = vec4<f32>; // four dims of a key on their way: of f16, if it is stored so
alias ValueFour = vec4<f32>;
const LOG_N: bool = false; // the scale depends on the row's number of visible keys
const SOFTCAP: bool = false;
const ENTROPY: bool = false;
const ROW_MASK: bool = false; // there is a bias or a mask: every step may hide a key from a row
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const V_CHUNKS: u32 = (V_DIM + 3u) / 4u;

var<private> tile: Tile;
var<private> rows: Rows; // this invocation's row, four times
var<private> scale: f32;
var<private> sum: f32; // of this invocation's weights, each relative to row_max
var<private> weighted: f32; // of each times (score - row_max), for the entropy

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(num_subgroups) count: u32,
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
    if (!subgroups_are_whole(local, size, count)) {
        for (var i = local; i < (own_tile.last - own_tile.first + 1u) * V_CHUNKS; i += WORKGROUP) {
            write_nan(one_row_of(own_tile, own_tile.first + i / V_CHUNKS), split, i % V_CHUNKS, not_a_number(size));
        }
        return;
    }
    take_place(local, subgroup, lane);
    rows = one_row_of(own_tile, own_tile.first + own * OWN_ROWS + row);
    scale = row_scales(rows).x * UNIT;

    let walk = walk_of(own_tile, split * params.split_keys, (split + 1u) * params.split_keys);
    start_walk(walk, q_base(rows).x, k_base);
    take_steps(walk, k_base, v_base);

    write_row(split);
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
    score_keys(j, last, edge, k_base, v_base);

    // Scale, softcap, bias, and which of the keys the row sees; the largest score.
    var s: array<vec4<f32>, OWN_CHUNKS>;
    var largest = vec4(HIDDEN);
    for (var i = 0u; i < OWN_CHUNKS; i++) { // unroll if UNROLL
        var four = scores_of(i) * scale;
        if (SOFTCAP) {
            four = softcap(four);
        }
        s[i] = four;
    }
    if (edge) {
        for (var i = 0u; i < OWN_CHUNKS; i++) { // unroll if UNROLL
            s[i] = bias_and_mask_of(rows, s[i], vec4(j + own_key(i)) + vec4(0u, 1u, 2u, 3u)).s;
        }
    }
    for (var i = 0u; i < OWN_CHUNKS; i++) { // unroll if UNROLL
        largest = max(largest, s[i]);
    }

    // By how much what was summed so far shrinks.
    let step_down = follow_maximum(largest, j);
    let shrink = weight(vec4(step_down)).x;
    sum *= shrink; // before the product with step_down, which might overflow
    weighted = shrink * weighted + step_down * sum;

    // Weights; exactly 0 where the row does not see the key.
    var added = vec4(0.0);
    var added_weighted = vec4(0.0);
    for (var i = 0u; i < OWN_CHUNKS; i++) { // unroll if UNROLL
        let below = s[i] - row_max;
        let p = weight(below);
        added += p;
        if (ENTROPY) {
            added_weighted += p * below;
        }
        put_weights(i, p);
    }
    sum += (added.x + added.y) + (added.z + added.w);
    weighted += (added_weighted.x + added_weighted.y) + (added_weighted.z + added_weighted.w);
    add_values(shrink, j);
}

// Four dims of a row, with the first its statistics, of a workgroup whose subgroups are of another size.
fn write_nan(rows: Rows, split: u32, c: u32, nan: f32) {
    finish_o(rows, 0u, split, c, vec4(nan), 1.0);
    if (c == 0u) {
        finish_row(rows, 0u, split, 0.0, nan, nan);
    }
}

// The row's results; what its invocations have summed each for itself is added up.
fn write_row(split: u32) {
    sum = sum_of_row(sum);
    if (ENTROPY) {
        weighted = sum_of_row(weighted);
    }
    let is_there = tile.first + own * OWN_ROWS + row <= tile.last;
    for (var panel = 0u; panel < V_PANELS; panel++) {
        put_o_sums(panel);
        for (var i = 0u; i < OWN_CHUNKS; i++) {
            if (is_there && o_chunk(panel) + i < V_CHUNKS) {
                finish_o(rows, 0u, split, o_chunk(panel) + i, scores_of(i), sum);
            }
        }
    }
    if (is_there && x == 0u) {
        finish_row(rows, 0u, split, row_max * (1.0 / UNIT), sum, weighted * (1.0 / UNIT));
    }
}
