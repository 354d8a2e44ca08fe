// The gradients of keys and values, by matrices that subgroups multiply: dv = pT dout and dk = dsT (scale q), one pass over the queries, KEYS
// of them a step.
//
// One workgroup owns ROWS consecutive keys of one (batch, kv head), and a range of the heads that share the kv head and of their queries.
// The rows of its tile are the keys, the items that it walks the queries. How its subgroups share them, what workgroup memory that takes, and
// in what units weights become f16, is told in backward_matrices.wgsl.
// Workgroup memory: what the device grants, up to 57 KiB.
// Features: subgroups, f16, cooperative matrices.
// Source: Dao, "FlashAttention-2", 2023, algorithm 2.
const SUBGROUP: u32 = 32u; // invocations in a subgroup
const SUBGROUPS: u32 = 4u;
const KEYS: u32 = 32u; // queries of a step
const HEAD_DIM: u32 = 64u;
const V_DIM: u32 = 64u;
const OWN_ROWS: u32 = 16u; // of a subgroup
const TURNED: bool = true; // there is room for terms side by side
const AHEAD: bool = true; // what is brought is fetched before a step's products: it is few
const UNROLL: bool = true; // what an invocation has of a step's pairs is few
const UNROLL_TERMS: bool = true; // the matrices of a step's terms are few
const SOFTCAP: bool = false;
const ENTROPY: bool = false; // a gradient of the entropy comes in
const DOUT: bool = true; // one of o does
const DK: bool = true; // which are asked for
const DV: bool = true;
const HAS_BIAS: bool = false;
const ROW_MASK: bool = false; // there is a bias or a mask: every step may hide a key from a row
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const OUT_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const DP: bool = DOUT && DK;
const FIRST_SUMS: bool = DK;
const SECOND_SUMS: bool = DOUT && DV;
const FACT_PARTS: u32 = (KEYS + WORKGROUP - 1u) / WORKGROUP; // that an invocation brings
const BIAS: bool = false; // no gradient of the bias
const LOG_N: bool = false; // backward_scales.wgsl has made the scales

// Of a step's queries: lse, delta, scale, dentropy, and the unit of dout.
var<workgroup> item_facts: array<array<array<f32, 4>, KEYS / 4u>, 5>;

var<private> tile: Tile; // of keys
var<private> head: u32; // of the queries that are walked
var<private> k_first: u32; // where this invocation's key and value start
var<private> v_first: u32;
var<private> q_first: u32; // and the first query of the head, and its gradient
var<private> dout_first: u32;

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
    take_place(local, subgroup, lane);
    let split = workgroup % params.splits;
    let tiles = workgroup / params.splits;
    let own_tile = key_tile_of(params.first_pair + tiles / params.tiles, tiles % params.tiles);
    tile = own_tile;
    if (!subgroups_are_whole(local, size, count)) {
        let nan = vec4(not_a_number(size));
        for (var i = local; i < (own_tile.last - own_tile.first + 1u) * HEAD_CHUNKS; i += WORKGROUP) {
            put_dk(own_tile.first + i / HEAD_CHUNKS, split, i % HEAD_CHUNKS, nan);
        }
        for (var i = local; i < (own_tile.last - own_tile.first + 1u) * OUT_CHUNKS; i += WORKGROUP) {
            put_dv(own_tile.first + i / OUT_CHUNKS, split, i % OUT_CHUNKS, nan);
        }
        return;
    }
    let key = tile.first + own * OWN_ROWS + row;
    let there = min(key, tile.last);
    k_first = params.k_start + tile.batch * params.k_batch + tile.kv_head * params.k_head + there * params.k_row;
    v_first = params.v_start + tile.batch * params.v_batch + tile.kv_head * params.v_head + there * params.v_row;
    start_sums();

    let first_row = (split % params.row_splits) * params.split_rows;
    let walk = queries_of(own_tile, first_row, min(first_row + params.split_rows, params.q_len));
    let first_head = (split / params.row_splits) * params.split_heads;
    let past_head = min(first_head + params.split_heads, params.group);
    for (var of_group = first_head; of_group < past_head; of_group++) {
        head = own_tile.kv_head * params.group + of_group;
        q_first = params.q_start + own_tile.batch * params.q_batch + head * params.q_head;
        dout_first = params.dout_start + own_tile.batch * params.dout_batch + head * params.dout_head;
        ahead = NONE;
        take_steps(walk, 0u, 0u);
    }

    // Of a key that no row sees, whatever it is.
    let is_seen = i32(key) < tile.len;
    if (DK) {
        for (var panel = 0u; panel < panels(false); panel++) {
            put_sums(false, panel);
            for (var i = 0u; i < OWN_CHUNKS; i++) {
                if (key <= tile.last && sum_chunk(panel) + i < HEAD_CHUNKS) {
                    put_dk(key, split, sum_chunk(panel) + i, select(vec4(0.0), units[0] * numbers_of(0u, i), is_seen));
                }
            }
        }
    }
    if (DV) {
        for (var panel = 0u; panel < panels(true); panel++) {
            put_sums(true, panel);
            for (var i = 0u; i < OWN_CHUNKS; i++) {
                if (key <= tile.last && sum_chunk(panel) + i < OUT_CHUNKS) {
                    put_dv(key, split, sum_chunk(panel) + i, select(vec4(0.0), units[1] * numbers_of(0u, i), is_seen));
                }
            }
        }
    }
}

fn put_dk(key: u32, split: u32, c: u32, value: vec4<f32>) {
    if (DK) {
        finish_dk(tile.batch, tile.kv_head, key, split, c, value);
    }
}

fn put_dv(key: u32, split: u32, c: u32, value: vec4<f32>) {
    if (DV) {
        finish_dv(tile.batch, tile.kv_head, key, split, c, value);
    }
}

fn place_of(query: u32) -> u32 {
    return (tile.batch * params.q_heads + head) * params.q_len + query;
}

fn row_chunk(second: bool, c: u32) -> vec4<f32> {
    if (second) {
        return load_v(v_first, c);
    }
    return load_k(k_first, c);
}

fn item_chunk(second: bool, i: u32, c: u32) -> vec4<f32> {
    if (second) {
        return load_dout(dout_first + i * params.dout_row, c);
    }
    return load_q(q_first + i * params.q_row, c);
}

// In units of each row.
fn item_scales(i: vec4<u32>) -> vec4<f32> {
    return vec4(inverse(unit_at(i.x)), inverse(unit_at(i.y)), inverse(unit_at(i.z)), inverse(unit_at(i.w)));
}

fn unit_at(i: u32) -> f32 {
    return unit_of(facts[place_of(i)].w);
}

// Of the step's queries from `first` on. Fetched before all have done with the last step's.
fn bring_facts(first: u32, last: u32) {
    var own_facts: array<vec4<f32>, FACT_PARTS>;
    var own_units: array<f32, FACT_PARTS>;
    for (var part = 0u; part < FACT_PARTS; part++) { // unroll
        let i = min(first + part * WORKGROUP + invocation, last);
        if (part * WORKGROUP + invocation < KEYS) {
            own_facts[part] = facts_at(place_of(i));
            own_units[part] = unit_at(i);
        }
    }
    start_step();
    for (var part = 0u; part < FACT_PARTS; part++) { // unroll
        let i = part * WORKGROUP + invocation;
        if (i < KEYS) {
            for (var f = 0u; f < 4u; f++) { // unroll
                item_facts[f][i / 4u][i % 4u] = own_facts[part][f];
            }
            item_facts[4][i / 4u][i % 4u] = own_units[part];
        }
    }
}

fn four_facts(f: u32, i: u32) -> vec4<f32> {
    let four = x * OWN_CHUNKS + i;
    return vec4(item_facts[f][four][0], item_facts[f][four][1], item_facts[f][four][2], item_facts[f][four][3]);
}

// Four queries from i on. Past the last, one sees no key.
fn query_rows(first: u32, last: u32) -> Rows {
    let i = vec4(first) + vec4(0u, 1u, 2u, 3u);
    let lo = max(vec4<i32>(i) + tile.diagonal - params.left, vec4(0));
    let hi = clamp(vec4<i32>(i) + tile.diagonal + params.right + 1, vec4(0), vec4(tile.len));
    return Rows(tile.batch, vec4(head), min(i, vec4(last)), lo, select(hi, lo, i > vec4(last)));
}

// KEYS queries from `first` on, none past `last`. `edge`: some of them do not see some key.
fn step(first: u32, last: u32, edge: bool, k_base: u32, v_base: u32) {
    bring_facts(first, last);
    bring_items(first, last, edge);
    multiply_pairs();

    // Weights of queries and of dout, and what they would be at most were p 1.
    var p: array<vec4<f32>, OWN_CHUNKS>;
    var ds: array<vec4<f32>, OWN_CHUNKS>;
    var p_bounds = vec4(0.0);
    var ds_bounds = vec4(0.0);
    for (var i = 0u; i < OWN_CHUNKS; i++) { // unroll if UNROLL
        let of_queries = Facts(four_facts(0u, i), four_facts(1u, i), four_facts(2u, i), four_facts(3u, i));
        let unit = four_facts(4u, i);
        let dp = unit * dp_of(i);
        var pairs: Pairs;
        if (edge) {
            let key = vec4(tile.first + own * OWN_ROWS + row);
            pairs = pairs_of(numbers_of(0u, i), dp, of_queries, query_rows(first + own_item(i), last), key, true);
        } else {
            pairs = pairs_of(numbers_of(0u, i), dp, of_queries, Rows(), vec4(0u), false);
        }
        let none = pairs.p == vec4(0.0);
        // The scale of a row may be NaN, which is nothing to keys that it does not see.
        ds[i] = select(of_queries.scale * pairs.ds, vec4(0.0), none);
        p[i] = unit * pairs.p;
        let bound = abs(of_queries.scale) * (abs(dp) + abs(of_queries.delta) + abs(of_queries.dentropy));
        ds_bounds = max(ds_bounds, select(bound, vec4(0.0), none));
        p_bounds = max(p_bounds, select(unit, vec4(0.0), none));
    }
    var shrink = vec2(1.0);
    if (FIRST_SUMS) {
        shrink.x = follow_bounds(0u, ds_bounds);
        for (var i = 0u; i < OWN_CHUNKS; i++) { // unroll if UNROLL
            put_weights(0u, i, ds[i]);
        }
    }
    if (SECOND_SUMS) {
        shrink.y = follow_bounds(1u, p_bounds);
        for (var i = 0u; i < OWN_CHUNKS; i++) { // unroll if UNROLL
            put_weights(1u, i, p[i]);
        }
    }
    workgroupBarrier();
    if (FIRST_SUMS) {
        add_first_terms(shrink.x);
    }
    if (SECOND_SUMS) {
        add_second_terms(shrink.y);
    }
}
