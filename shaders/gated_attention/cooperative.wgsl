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
const POWER: f32 = select(2.0, 1.0, SOFTMAX);
const LEAST: f32 = 1.1754944e-38; // what the square of is 0, as that of every score that is not positive
const_assert KEY_DIM >= 1u && V_DIM >= 1u && V_BLOCK >= 1u && V_BLOCK <= O_CHUNKS;

var<private> tile: Tile;
var<private> sees: vec2<i32>; // the first key that the row sees, and one past the last
var<private> scale: f32; // of a softmax
var<private> sum: f32; // of this invocation's weights
var<private> v_first: u32; // the block's first chunk of value dims

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
    let block = params.first_block + workgroup % params.blocks;
    let split = (workgroup / params.blocks) % params.splits;
    let tiles = workgroup / params.blocks / params.splits;
    let own_tile = row_tile(tiles / params.row_tiles, tiles % params.row_tiles);
    let k_base = params.k_start + own_tile.batch * params.k_batch + own_tile.kv_head * params.k_head;
    let v_base = params.v_start + own_tile.batch * params.v_batch + own_tile.kv_head * params.v_head;
    tile = own_tile;
    // The last block starts early enough to be whole.
    v_first = min(block * V_BLOCK, O_CHUNKS - V_BLOCK);
    if (!subgroups_are_whole(local, size, count)) {
        for (var i = local; i < (own_tile.last - own_tile.first + 1u) * V_CHUNKS; i += WORKGROUP) {
            let c = v_first + i % V_CHUNKS;
            if (c >= block * V_BLOCK) {
                write_nan(one_row_of(own_tile, own_tile.first + i / V_CHUNKS), split, c, not_a_number(size));
            }
        }
        return;
    }
    take_place(local, subgroup, lane);
    let rows = own_row(0u);
    sees = vec2(rows.lo.x, rows.hi.x);
    scale = row_scales(rows).x;

    let walk = walk_of(own_tile, first_key(own_tile, split), end_key(split));
    start_walk(walk, q_base(rows).x, k_base);
    take_steps(walk, k_base, v_base);

    write_row(split, block * V_BLOCK);
}

// This invocation's row, four times, found again at the end: kept, it would take registers through the whole walk. `zero` is 0, of
// which a compiler that would keep it must not know.
fn own_row(zero: u32) -> Rows {
    return one_row_of(tile, tile.first + own * OWN_ROWS + row + zero);
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
    if (!MAPPED) {
        return load_q(base, c);
    }
    return load_q(base, c) * affine_gamma(Q_MAP, tile.kv_head, c) + affine_beta(Q_MAP, tile.kv_head, c);
}

fn key_chunk(base: u32, c: u32) -> vec4<f32> {
    if (!MAPPED) {
        return load_k(base, c);
    }
    return load_k(base, c) * affine_gamma(K_MAP, tile.kv_head, c) + affine_beta(K_MAP, tile.kv_head, c);
}

fn value_chunk(base: u32, c: u32) -> vec4<f32> {
    return load_v(base, v_first + c);
}

// KEYS keys from j on, none past `last`. `edge`: some row does not see some of them.
fn step(j: u32, last: u32, edge: bool, k_base: u32, v_base: u32) {
    score_keys(j, last, edge, k_base, v_base);

    // Logarithms of the weights, or of their roots.
    var s: array<vec4<f32>, OWN_CHUNKS>;
    var largest = vec4(HIDDEN / POWER);
    for (var i = 0u; i < OWN_CHUNKS; i++) { // unroll if UNROLL
        if (SOFTMAX) {
            s[i] = scores_of(i) * scale;
        } else {
            s[i] = log2(max(scores_of(i), vec4(LEAST)));
        }
    }
    if (edge) {
        for (var i = 0u; i < OWN_CHUNKS; i++) { // unroll if UNROLL
            let key = vec4<i32>(vec4(j + own_key(i)) + vec4(0u, 1u, 2u, 3u));
            s[i] = select(vec4(HIDDEN / POWER), s[i], (key >= vec4(sees.x)) & (key < vec4(sees.y)));
        }
    }
    for (var i = 0u; i < OWN_CHUNKS; i++) { // unroll if UNROLL
        largest = max(largest, s[i]);
    }

    // By how much what was summed so far shrinks.
    let shrink = exp2(follow_maximum(POWER * largest, j));
    sum *= shrink;
    var added = vec4(0.0);
    for (var i = 0u; i < OWN_CHUNKS; i++) { // unroll if UNROLL
        let p = exp2(fma(vec4(POWER), s[i], vec4(-row_max)));
        added += p;
        put_weights(i, p);
    }
    sum += (added.x + added.y) + (added.z + added.w);
    add_values(shrink, j);
}

// Four dims of a row, with the first its statistics, of a workgroup whose subgroups are of another size.
fn write_nan(rows: Rows, split: u32, c: u32, nan: f32) {
    finish_o(rows.batch, rows.head.x, rows.row.x, split, c, vec4(nan), 1.0, 1.0);
    if (c == 0u) {
        finish_row(rows.batch, rows.head.x, rows.row.x, split, 0.0, 1.0, nan);
    }
}

// The row's results, of chunks from `first` on; those before it belong to the block before. What the row's invocations have summed each
// for itself is added up.
fn write_row(split: u32, first: u32) {
    let rows = own_row(split >> 31u);
    let n = visible_keys(rows).x;
    sum = sum_of_row(sum);
    // Weights that are not divided by each other are told at their true size.
    let unit = select(exp2(row_max), 1.0, SOFTMAX);
    let is_there = tile.first + own * OWN_ROWS + row <= tile.last;
    for (var panel = 0u; panel < V_PANELS; panel++) {
        put_o_sums(panel);
        for (var i = 0u; i < OWN_CHUNKS; i++) {
            let c = o_chunk(panel) + i;
            if (is_there && c < V_CHUNKS && v_first + c >= first) {
                finish_o(rows.batch, rows.head.x, rows.row.x, split, v_first + c, scores_of(i) * unit, n, sum * unit);
            }
        }
    }
    if (is_there && x == 0u && v_first == 0u) {
        finish_row(rows.batch, rows.head.x, rows.row.x, split, row_max * LN_2, n, sum * unit);
    }
}
