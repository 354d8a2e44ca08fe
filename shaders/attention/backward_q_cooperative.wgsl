// The gradients of queries, by matrices that subgroups multiply: dq = scale (ds k), one pass over the keys, KEYS of them a step.
//
// One workgroup owns ROWS consecutive rows of one (batch, kv head) and one range of the keys; the rows are the queries of the heads that
// share the kv head, head after head. How its subgroups share them, what workgroup memory that takes, and in what units weights become f16,
// is told in backward_matrices.wgsl.
// Workgroup memory: what the device grants, up to 57 KiB.
// Features: subgroups, f16, cooperative matrices.
// Source: Dao, "FlashAttention-2", 2023, algorithm 2.
const SUBGROUP: u32 = 32u; // invocations in a subgroup
const SUBGROUPS: u32 = 4u;
const KEYS: u32 = 32u;
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
const HAS_BIAS: bool = false;
const ROW_MASK: bool = false; // there is a bias or a mask: every step may hide a key from a row
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const OUT_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const DP: bool = DOUT;
const FIRST_SUMS: bool = true; // ds k
const SECOND_SUMS: bool = false;
const BIAS: bool = false; // no gradient of the bias
const LOG_N: bool = false; // backward_scales.wgsl has made the scales

var<private> tile: Tile;
var<private> rows: Rows; // this invocation's row, four times
var<private> own_facts: Facts; // likewise
var<private> unit: f32; // of its dout
var<private> q_first: u32; // where it starts in q
var<private> dout_first: u32; // and in dout
var<private> k_first: u32; // where the first key and value of the kv head start
var<private> v_first: u32;

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
    let own_tile = tile_of(params.first_pair + tiles / params.tiles, tiles % params.tiles, ROWS);
    if (!subgroups_are_whole(local, size, count)) {
        for (var i = local; i < (own_tile.last - own_tile.first + 1u) * HEAD_CHUNKS; i += WORKGROUP) {
            let nan = vec4(not_a_number(size));
            finish_dq(one_row_of(own_tile, own_tile.first + i / HEAD_CHUNKS), 0u, split, i % HEAD_CHUNKS, nan, 1.0);
        }
        return;
    }
    tile = own_tile;
    k_first = params.k_start + tile.batch * params.k_batch + tile.kv_head * params.k_head;
    v_first = params.v_start + tile.batch * params.v_batch + tile.kv_head * params.v_head;
    rows = one_row_of(tile, tile.first + own * OWN_ROWS + row);
    q_first = q_base(rows).x;
    dout_first = params.dout_start + rows.batch * params.dout_batch + rows.head.x * params.dout_head + rows.row.x * params.dout_row;
    let place = (tile.batch * params.q_heads + rows.head.x) * params.q_len + rows.row.x;
    let own_row = facts_at(place);
    own_facts = Facts(own_row.xxxx, own_row.yyyy, own_row.zzzz, own_row.wwww);
    unit = unit_of(facts[place].w);
    start_sums();

    take_steps(walk_of(own_tile, split * params.split_keys, (split + 1u) * params.split_keys), k_first, v_first);

    let is_there = own_tile.first + own * OWN_ROWS + row <= own_tile.last;
    for (var panel = 0u; panel < panels(false); panel++) {
        put_sums(false, panel);
        for (var i = 0u; i < OWN_CHUNKS; i++) {
            if (is_there && sum_chunk(panel) + i < HEAD_CHUNKS) {
                finish_dq(rows, 0u, split, sum_chunk(panel) + i, units[0] * numbers_of(0u, i), own_facts.scale.x);
            }
        }
    }
}

fn row_chunk(second: bool, c: u32) -> vec4<f32> {
    if (second) {
        return inverse(unit) * load_dout(dout_first, c);
    }
    return load_q(q_first, c);
}

fn item_chunk(second: bool, j: u32, c: u32) -> vec4<f32> {
    if (second) {
        return load_v(v_first + j * params.v_row, c);
    }
    return load_k(k_first + j * params.k_row, c);
}

fn item_scales(j: vec4<u32>) -> vec4<f32> {
    return vec4(1.0);
}

// KEYS keys from j on, none past `last`. `edge`: some row does not see some of them.
fn step(j: u32, last: u32, edge: bool, k_base: u32, v_base: u32) {
    start_step();
    bring_items(j, last, edge);
    multiply_pairs();

    // Gradients of the scores; what they would be at most were the weight 1.
    var ds: array<vec4<f32>, OWN_CHUNKS>;
    var bounds = vec4(0.0);
    for (var i = 0u; i < OWN_CHUNKS; i++) { // unroll if UNROLL
        let dp = unit * dp_of(i);
        var pairs: Pairs;
        if (edge) {
            pairs = pairs_of(numbers_of(0u, i), dp, own_facts, rows, vec4(j + own_item(i)) + vec4(0u, 1u, 2u, 3u), true);
        } else {
            pairs = pairs_of(numbers_of(0u, i), dp, own_facts, rows, vec4(0u), false);
        }
        ds[i] = pairs.ds;
        bounds = max(bounds, select(abs(dp), vec4(0.0), pairs.p == vec4(0.0)));
    }
    // What follows from the row alone bounds no gradient of a key that it does not see.
    let of_row = abs(own_facts.delta) + abs(own_facts.dentropy);
    let shrink = follow_bounds(0u, bounds + of_row);
    for (var i = 0u; i < OWN_CHUNKS; i++) { // unroll if UNROLL
        put_weights(0u, i, ds[i]);
    }
    workgroupBarrier();
    add_first_terms(shrink);
}
