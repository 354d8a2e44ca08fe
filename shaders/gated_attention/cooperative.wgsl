// Gated attention by matrices that subgroups multiply: o = u * (A v) with A = relu(scale q kT)^2 / divisor or softmax(scale q kT),
// factors rounded to f16, sums in f32.
//
// One workgroup owns ROWS consecutive rows of one (batch, kv head), one range of the keys, and V_BLOCK chunks of four value
// dims, as in tiled.wgsl. How its subgroups share them, what workgroup memory that takes, and when o is rescaled, is told in
// shared/matrix_tile.wgsl. Weights are exp2 of the scores in units of log2, and those of relu squared are too, for their size is
// not bounded and that of f16 is: relu(s)^2 = exp2(2 log2(s)), in units of the row's largest.
// Workgroup memory: what the device grants, up to 48 KiB. Features: subgroups, f16, cooperative matrices.
// Source: Hua et al., "Transformer Quality in Linear Time", 2022, section 3.
const SUBGROUP: u32 = 32u; // invocations in a subgroup
const SUBGROUPS: u32 = 4u;
const KEYS: u32 = 32u;
const UNROLL: bool = true; // what an invocation has of a step's scores is few
const KEY_DIM: u32 = 128u;
const V_DIM: u32 = 1536u;
const V_BLOCK: u32 = 32u;
const SOFTMAX: bool = false; // relu squared otherwise
const LOG_N: bool = false; // the scale grows with log n, n being the row's number of visible keys
const DIVISOR: u32 = 2u; // see divisor.wgsl

const ROW_MASK: bool = false; // rows see keys by position alone
const KEY_CHUNKS: u32 = (KEY_DIM + 3u) / 4u;
const HEAD_CHUNKS: u32 = KEY_CHUNKS;
const V_CHUNKS: u32 = V_BLOCK; // of the block
const O_CHUNKS: u32 = (V_DIM + 3u) / 4u; // of a row of v and o
const LOG2_E: f32 = 1.4426950408889634;
const LN_2: f32 = 0.6931471805599453;
const UNIT: f32 = LOG2_E; // of scores
// The score of a key that a row does not see, and where its maximum starts: below every score, and from each by a finite
// difference.
const HIDDEN: f32 = 1.25 * LOWEST * UNIT;
const_assert KEY_DIM >= 1u && V_DIM >= 1u && V_BLOCK >= 1u && V_BLOCK <= O_CHUNKS;

var<private> tile: Tile;
var<private> scale: vec4<f32>;
var<private> sum: vec4<f32>; // of this invocation's weights
var<private> v_first: u32; // the block's first chunk of value dims

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
    let block = params.first_block + workgroup % params.blocks;
    let split = (workgroup / params.blocks) % params.splits;
    let tiles = workgroup / params.blocks / params.splits;
    let own_tile = row_tile(tiles / params.row_tiles, tiles % params.row_tiles);
    let k_base = params.k_start + own_tile.batch * params.k_batch + own_tile.kv_head * params.k_head;
    let v_base = params.v_start + own_tile.batch * params.v_batch + own_tile.kv_head * params.v_head;
    tile = own_tile;
    take_place(local, subgroup, lane);
    // The last block starts early enough to be whole.
    v_first = min(block * V_BLOCK, O_CHUNKS - V_BLOCK);
    scale = row_scales(own_rows(0u));
    bring_queries();

    take_steps(walk_of(own_tile, first_key(own_tile, split), end_key(split)), k_base, v_base);

    write_rows(split, block * V_BLOCK);
}

// Four rows of this invocation, found again wherever they are asked for: kept, they would take 20 registers. `zero` is 0, of
// which a compiler that would keep them must not know.
fn own_rows(zero: u32) -> Rows {
    return rows_of(tile, tile.first + 4u * y + zero);
}

fn row_scales(rows: Rows) -> vec4<f32> {
    var scales = vec4(params.scale);
    if (LOG_N) {
        scales *= log(max(visible_keys(rows), vec4(f32(params.scale_floor))));
    }
    return scales * select(1.0, LOG2_E, SOFTMAX);
}

// With maps, a head of k is one of q.
fn query_chunk(base: u32, c: u32) -> vec4<f32> {
    return load_q(base, c) * affine_gamma(Q_MAP, tile.kv_head, c) + affine_beta(Q_MAP, tile.kv_head, c);
}

fn key_chunk(base: u32, c: u32) -> vec4<f32> {
    return load_k(base, c) * affine_gamma(K_MAP, tile.kv_head, c) + affine_beta(K_MAP, tile.kv_head, c);
}

fn value_chunk(base: u32, c: u32) -> vec4<f32> {
    return load_v(base, v_first + c);
}

// KEYS keys from j on, none past `last`. `edge`: some row does not see some of them.
fn step(j: u32, last: u32, edge: bool, k_base: u32, v_base: u32) {
    score_keys(j, last, k_base);

    // Weights in units of log2; HIDDEN where they are 0.
    var s: array<vec4<f32>, OWN_KEYS>;
    var largest = row_max;
    for (var i = 0u; i < OWN_KEYS; i++) { // unroll if UNROLL
        var four = scores_of(i) * scale;
        if (!SOFTMAX) {
            let positive = four > vec4(0.0);
            four = select(vec4(HIDDEN), 2.0 * log2(select(vec4(1.0), four, positive)), positive);
        }
        if (edge) {
            let rows = own_rows(j >> 31u);
            let key = vec4(i32(j + own_key(i)));
            four = select(vec4(HIDDEN), four, (key >= rows.lo) & (key < rows.hi));
        }
        s[i] = four;
        largest = max(largest, four);
    }

    // By how much what was summed so far shrinks.
    let shrink = exp2(follow_maxima(largest));
    sum *= shrink;
    for (var i = 0u; i < OWN_KEYS; i++) { // unroll if UNROLL
        let below = s[i] - row_max;
        var p = exp2(below);
        if (edge || !SOFTMAX) {
            p = select(p, vec4(0.0), s[i] == vec4(HIDDEN));
        }
        sum += p;
        put_weights(i, p);
    }
    add_values(shrink, j, last, edge, v_base);
}

// The tile's results, of chunks from `first` on; those before it belong to the block before. What the invocations along WIDTH have
// summed each for itself is added up.
fn write_rows(split: u32, first: u32) {
    let rows = own_rows(split >> 31u);
    let n = visible_keys(rows);
    sum = sum_along_width(PerRow(sum))[0u];
    // Weights that are not divided by each other are told at their true size.
    var unit = vec4(1.0);
    if (!SOFTMAX) {
        unit = exp2(row_max);
    }
    for (var dims = 0u; dims < V_MATRICES; dims++) {
        put_o_sums(dims);
        for (var i = x; i < SIZE; i += WIDTH) {
            let r = i / (SIZE / 4u);
            let c = i % (SIZE / 4u);
            let own = dims * (SIZE / 4u) + c;
            if (tile.first + 4u * y + r <= tile.last && own < V_CHUNKS && v_first + own >= first) {
                let o4 = o_of(r, c) * unit[r];
                finish_o(rows.batch, rows.head[r], rows.row[r], split, v_first + own, o4, n[r], sum[r] * unit[r]);
            }
        }
    }
    for (var r = 0u; r < 4u; r++) { // unroll
        if (x == 0u && v_first == 0u && tile.first + 4u * y + r <= tile.last) {
            finish_row(rows.batch, rows.head[r], rows.row[r], split, row_max[r] * LN_2, n[r], sum[r] * unit[r]);
        }
    }
}
