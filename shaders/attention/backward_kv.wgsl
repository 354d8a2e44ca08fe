// The gradients of keys and values, by tiles: dv = pT dout and dk = dsT (scale q), one pass over the queries, KEYS of them a step.
//
// One workgroup owns ROWS consecutive keys of one (batch, kv head), and a range of the heads that share the kv head and of their queries.
// The rows of its tile are the keys, the items that it walks the queries. How its WIDTH x HEIGHT invocations share a tile, and what
// workgroup memory that takes, is told in shared/tile.wgsl and backward_tile.wgsl: scores, gradients of pairs, dk and dv stay in registers.
// Workgroup memory: at most 16 KiB with the SLAB of 16 or 8 that every device holds. Features: none.
// Source: Dao, "FlashAttention-2", 2023, algorithm 2.
const WIDTH: u32 = 8u;
const HEIGHT: u32 = 16u;
const GROUPS: u32 = 2u;
const COLUMNS: u32 = 2u;
const OWN_KEYS: u32 = 4u; // queries of an invocation, in a step
const SLAB: u32 = 16u;
const HEAD_DIM: u32 = 64u;
const V_DIM: u32 = 64u;
const V_CHUNKS: u32 = 16u; // fours of dims of what is summed, as tile.wgsl calls them: the more of head_dim and v_dim
const SOFTCAP: bool = false;
const ENTROPY: bool = false; // a gradient of the entropy comes in
const DOUT: bool = true; // one of o does
const DK: bool = true; // which are asked for
const DV: bool = true;
const HAS_BIAS: bool = false;
const ROW_MASK: bool = false; // there is a bias or a mask: every step may hide a key from a row
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const HEAD_SLABS: u32 = (HEAD_DIM + SLAB - 1u) / SLAB;
const OUT_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const OUT_SLABS: u32 = (V_DIM + SLAB - 1u) / SLAB;
const KEYS_IN_FOURS: bool = false;
const BIAS: bool = false; // no gradient of the bias
const LOG_N: bool = false; // backward_scales.wgsl has made the scales

var<private> tile: Tile; // of keys
var<private> head: u32; // of the queries that are walked
var<private> k_first: u32; // where the first key and value of the kv head start
var<private> v_first: u32;
var<private> q_first: u32; // and the first query of the head, and its gradient
var<private> dout_first: u32;
var<private> dk_sums: Sums; // chunk x + c * WIDTH of each key
var<private> dv_sums: Sums;

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
    take_place(local);
    let split = workgroup % params.splits;
    let tiles = workgroup / params.splits;
    let own_tile = key_tile_of(params.first_pair + tiles / params.tiles, tiles % params.tiles);
    tile = own_tile;
    k_first = params.k_start + own_tile.batch * params.k_batch + own_tile.kv_head * params.k_head;
    v_first = params.v_start + own_tile.batch * params.v_batch + own_tile.kv_head * params.v_head;
    start_keys();

    let first_row = (split % params.row_splits) * params.split_rows;
    let walk = queries_of(own_tile, first_row, min(first_row + params.split_rows, params.q_len));
    let first_head = (split / params.row_splits) * params.split_heads;
    let past_head = min(first_head + params.split_heads, params.group);
    for (var own = first_head; own < past_head; own++) {
        head = own_tile.kv_head * params.group + own;
        q_first = params.q_start + own_tile.batch * params.q_batch + head * params.q_head;
        dout_first = params.dout_start + own_tile.batch * params.dout_batch + head * params.dout_head;
        take_steps(walk, 0u, 0u);
    }

    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var r = 0u; r < 4u; r++) { // unroll
            let key = tile.first + row_of(g) + r;
            if (key <= tile.last) {
                // Of a key that no row sees, whatever it is.
                let seen = i32(key) < tile.len;
                for (var c = 0u; c < COLUMNS; c++) { // unroll
                    let chunk = x + c * WIDTH;
                    if (DK && chunk < HEAD_CHUNKS) {
                        finish_dk(tile.batch, tile.kv_head, key, split, chunk, select(vec4(0.0), dk_sums[4u * g + r][c], seen));
                    }
                    if (DV && chunk < OUT_CHUNKS) {
                        finish_dv(tile.batch, tile.kv_head, key, split, chunk, select(vec4(0.0), dv_sums[4u * g + r][c], seen));
                    }
                }
            }
        }
    }
}

fn row_chunk(second: bool, part: u32, c: u32) -> mat4x4<f32> {
    let keys = min(vec4(tile.first + 4u * left_group(part)) + vec4(0u, 1u, 2u, 3u), vec4(tile.last));
    if (second) {
        let at = v_first + keys * params.v_row;
        return transpose(mat4x4(load_v(at.x, c), load_v(at.y, c), load_v(at.z, c), load_v(at.w, c)));
    }
    let at = k_first + keys * params.k_row;
    return transpose(mat4x4(load_k(at.x, c), load_k(at.y, c), load_k(at.z, c), load_k(at.w, c)));
}

fn item_at(second: bool, i: u32) -> u32 {
    return select(q_first + i * params.q_row, dout_first + i * params.dout_row, second);
}

fn item_chunk(second: bool, at: u32, c: u32) -> vec4<f32> {
    if (second) {
        return load_dout(at, c);
    }
    return load_q(at, c);
}

// One query four times: for four of the keys. Past the last, it sees none.
fn query_rows(i: u32, last: u32) -> Rows {
    let lo = max(i32(i) + tile.diagonal - params.left, 0);
    let hi = clamp(i32(i) + tile.diagonal + params.right + 1, 0, tile.len);
    return Rows(tile.batch, vec4(head), vec4(min(i, last)), vec4(lo), vec4(select(hi, lo, i > last)));
}

// KEYS queries from `first` on, none past `last`. `edge`: some of them do not see some key.
fn step(first: u32, last: u32, edge: bool, k_base: u32, v_base: u32) {
    var p = product(false, first, last);
    var ds: PerScore;
    if (DOUT && DK) {
        ds = product(true, first, last);
    }
    for (var i = 0u; i < OWN_KEYS; i++) { // unroll
        let query = first + key_of(i);
        let own = query_facts(min(query, last));
        let rows = query_rows(query, last);
        for (var g = 0u; g < GROUPS; g++) { // unroll
            var pairs: Pairs;
            if (edge) {
                let keys = vec4(tile.first + row_of(g)) + vec4(0u, 1u, 2u, 3u);
                pairs = pairs_of(p[i][g], ds[i][g], own, rows, keys, true);
            } else {
                pairs = pairs_of(p[i][g], ds[i][g], own, rows, vec4(0u), false);
            }
            p[i][g] = pairs.p;
            ds[i][g] = own.scale * pairs.ds;
            if (edge) {
                // The scale of a row may be NaN, which is nothing to keys that it does not see.
                ds[i][g] = select(ds[i][g], vec4(0.0), pairs.ds == vec4(0.0));
            }
        }
    }
    if (DOUT && DV) {
        add_terms(&dv_sums, p, true, first, last, edge);
    }
    if (DK) {
        add_terms(&dk_sums, ds, false, first, last, edge);
    }
}

fn query_facts(i: u32) -> Facts {
    let own = facts_at((tile.batch * params.q_heads + head) * params.q_len + i);
    return Facts(own.xxxx, own.yyyy, own.zzzz, own.wwww);
}
