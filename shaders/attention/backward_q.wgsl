// The gradients of queries, by tiles: dq = scale (ds k), one pass over the keys, KEYS of them a step.
//
// One workgroup owns ROWS consecutive rows of one (batch, kv head) and one range of the keys; the rows are the queries of the heads that
// share the kv head, head after head. How its WIDTH x HEIGHT invocations share a tile, and what workgroup memory that takes, is told in
// shared/tile.wgsl and backward_tile.wgsl: scores, gradients of pairs and dq stay in registers.
// Workgroup memory: at most 16 KiB with the SLAB of 16 or 8 that every device holds. Features: none.
// Source: Dao, "FlashAttention-2", 2023, algorithm 2.
const WIDTH: u32 = 8u;
const HEIGHT: u32 = 16u;
const GROUPS: u32 = 2u;
const COLUMNS: u32 = 2u;
const OWN_KEYS: u32 = 8u;
const SLAB: u32 = 16u;
const HEAD_DIM: u32 = 64u;
const V_DIM: u32 = 64u;
const V_CHUNKS: u32 = 16u; // fours of dims of what is summed, as tile.wgsl calls them: of head_dim
const SOFTCAP: bool = false;
const ENTROPY: bool = false; // a gradient of the entropy comes in
const DOUT: bool = true; // one of o does
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

// Of each row, as registers are what a step has least of: written by the invocation at x = 0.
var<workgroup> row_lse: array<array<vec4<f32>, HEIGHT>, GROUPS>;
var<workgroup> row_delta: array<array<vec4<f32>, HEIGHT>, GROUPS>;
var<workgroup> row_scales_of: array<array<vec4<f32>, HEIGHT>, GROUPS>;
var<workgroup> row_dentropy: array<array<vec4<f32>, HEIGHT>, GROUPS>;

var<private> sums: Sums; // ds k: chunk x + c * WIDTH of each row

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
    let own_tile = tile_of(params.first_pair + tiles / params.tiles, tiles % params.tiles, ROWS);
    take_queries(own_tile);
    for (var g = 0u; g < GROUPS; g++) { // unroll
        if (x == 0u) {
            let own = facts_of(own_rows(g, 0u));
            row_lse[g][y] = own.lse;
            row_delta[g][y] = own.delta;
            row_scales_of[g][y] = own.scale;
            row_dentropy[g][y] = own.dentropy;
        }
    }
    start_keys();

    take_steps(walk_of(own_tile, split * params.split_keys, (split + 1u) * params.split_keys), k_first, v_first);

    workgroupBarrier();
    for (var g = 0u; g < GROUPS; g++) { // unroll
        let rows = own_rows(g, split >> 31u);
        for (var r = 0u; r < 4u; r++) { // unroll
            if (tile.first + row_of(g) + r <= tile.last) {
                for (var c = 0u; c < COLUMNS; c++) { // unroll
                    if (x + c * WIDTH < HEAD_CHUNKS) {
                        finish_dq(rows, r, split, x + c * WIDTH, sums[4u * g + r][c], row_scales_of[g][y][r]);
                    }
                }
            }
        }
    }
}

// Four rows of this invocation, found again wherever they are asked for: kept, they would take 20 registers. `zero` is 0, of
// which a compiler that would keep them must not know.
fn own_rows(g: u32, zero: u32) -> Rows {
    return rows_of(tile, tile.first + row_of(g) + zero);
}

// KEYS keys from j on, none past `last`. `edge`: some row does not see some of them.
fn step(j: u32, last: u32, edge: bool, k_base: u32, v_base: u32) {
    let s = product(false, j, last);
    var ds: PerScore;
    if (DOUT) {
        ds = product(true, j, last);
    }
    for (var g = 0u; g < GROUPS; g++) { // unroll
        let own = Facts(row_lse[g][y], row_delta[g][y], row_scales_of[g][y], row_dentropy[g][y]);
        if (edge) {
            let rows = own_rows(g, j >> 31u);
            for (var i = 0u; i < OWN_KEYS; i++) { // unroll
                ds[i][g] = pairs_of(s[i][g], ds[i][g], own, rows, vec4(j + key_of(i)), true).ds;
            }
        } else {
            let rows = Rows();
            for (var i = 0u; i < OWN_KEYS; i++) { // unroll
                ds[i][g] = pairs_of(s[i][g], ds[i][g], own, rows, vec4(0u), false).ds;
            }
        }
    }
    add_terms(&sums, ds, false, j, last, edge);
}
