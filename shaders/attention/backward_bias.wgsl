// The gradient of the bias, by tiles: dbias = ds, summed over the sequences, heads and queries that share a number of the bias.
//
// One workgroup owns ROWS queries by KEYS keys of the bias, or, where all queries share it, KEYS keys, and a range of what is summed: it
// makes the tile's pairs for one (batch, head), and then the next. How its WIDTH x HEIGHT invocations share a tile, and what workgroup
// memory that takes, is told in shared/tile.wgsl and backward_tile.wgsl; here an invocation's keys lie side by side in fours.
// Workgroup memory: at most 16 KiB with the SLAB of 16 that every device holds. Features: none.
// Source: Dao, "FlashAttention-2", 2023, algorithm 2.
const WIDTH: u32 = 8u;
const HEIGHT: u32 = 16u;
const GROUPS: u32 = 2u;
const COLUMNS: u32 = 1u;
const OWN_KEYS: u32 = 8u;
const SLAB: u32 = 16u;
const HEAD_DIM: u32 = 64u;
const V_DIM: u32 = 64u;
const SOFTCAP: bool = false;
const ENTROPY: bool = false; // a gradient of the entropy comes in
const DOUT: bool = true; // one of o does
const SUM_ROWS: bool = false; // all queries share the bias
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const V_CHUNKS: u32 = 1u; // nothing is summed but the pairs themselves
const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const HEAD_SLABS: u32 = (HEAD_DIM + SLAB - 1u) / SLAB;
const OUT_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const OUT_SLABS: u32 = (V_DIM + SLAB - 1u) / SLAB;
const KEYS_IN_FOURS: bool = true;
const BIAS: bool = true;
const HAS_BIAS: bool = true;
const ROW_MASK: bool = true;
const LOG_N: bool = false; // backward_scales.wgsl has made the scales

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
    // Which keys, and then which queries, head and sequence of the bias.
    let split = workgroup % params.splits;
    let own = workgroup / params.splits;
    let j = own % params.key_tiles * KEYS;
    let bias_tile = own / params.key_tiles % params.tiles;
    let bias_head = own / params.key_tiles / params.tiles % params.bias_heads;
    let bias_batch = own / params.key_tiles / params.tiles / params.bias_heads;
    let last = min(j + KEYS, params.kv_len) - 1u;

    var sum: PerScore;
    let terms = params.sum_batches * params.sum_heads * params.sum_tiles;
    let past = min((split + 1u) * params.split_terms, terms);
    for (var term = split * params.split_terms; term < past; term++) {
        let batch = bias_batch + term / params.sum_tiles / params.sum_heads;
        let head = bias_head + term / params.sum_tiles % params.sum_heads;
        let own_tile = queries_of(batch, head, bias_tile + term % params.sum_tiles);
        if (sees(own_tile, j, last)) {
            add_pairs(&sum, own_tile, j, last);
        }
    }

    if (SUM_ROWS) {
        write_columns(sum, bias_batch, bias_head, split, j);
    } else {
        write_rows(sum, bias_batch, bias_head, bias_tile * ROWS, split, j);
    }
}

// A tile of queries of one head.
fn queries_of(batch: u32, head: u32, index: u32) -> Tile {
    let first = head % params.group * params.q_len;
    let len = i32(kv_len_of(batch));
    let diagonal = params.offset + select(0, len - i32(params.q_len), params.align_end == 1u);
    let past = first + min((index + 1u) * ROWS, params.q_len);
    return Tile(batch, head / params.group, first + index * ROWS, past - 1u, diagonal, len);
}

// Whether some query of the tile sees a key from `first` to `last` by position.
fn sees(tile: Tile, first: u32, last: u32) -> bool {
    let least = i32(tile.first % params.q_len) + tile.diagonal - params.left;
    let most = min(i32(tile.last % params.q_len) + tile.diagonal + params.right, tile.len - 1);
    return i32(last) >= least && i32(first) <= most;
}

fn own_rows(g: u32) -> Rows {
    return rows_of(tile, tile.first + row_of(g));
}

fn add_pairs(sum: ptr<function, PerScore>, own_tile: Tile, j: u32, last: u32) {
    take_queries(own_tile);
    let s = product(false, j, last);
    var dp: PerScore;
    if (DOUT) {
        dp = product(true, j, last);
    }
    for (var g = 0u; g < GROUPS; g++) { // unroll
        let rows = own_rows(g);
        let own = facts_of(rows);
        // Rows past the last are the last, once more.
        let there = vec4(tile.first + row_of(g)) + vec4(0u, 1u, 2u, 3u) <= vec4(tile.last);
        for (var i = 0u; i < OWN_KEYS; i++) { // unroll
            let ds = pairs_of(s[i][g], dp[i][g], own, rows, vec4(j + key_of(i)), true).ds;
            (*sum)[i][g] += select(vec4(0.0), ds, there);
        }
    }
}

fn write_rows(sum: PerScore, batch: u32, head: u32, first: u32, split: u32, j: u32) {
    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var r = 0u; r < 4u; r++) { // unroll
            let row = first + row_of(g) + r;
            if (row < params.q_len) {
                for (var m = 0u; m < OWN_KEYS / 4u; m++) { // unroll
                    let key = j + key_of(4u * m);
                    if (key < params.kv_len) {
                        let four = vec4(sum[4u * m][g][r], sum[4u * m + 1u][g][r], sum[4u * m + 2u][g][r], sum[4u * m + 3u][g][r]);
                        finish_dbias(batch, head, row, split, key / 4u, four);
                    }
                }
            }
        }
    }
}

// Of all queries: what each invocation has of its own is added up along HEIGHT, by way of workgroup memory.
fn write_columns(sum: PerScore, batch: u32, head: u32, split: u32, j: u32) {
    for (var m = 0u; m < OWN_KEYS / 4u; m++) { // unroll
        var four: vec4<f32>;
        for (var i = 0u; i < 4u; i++) { // unroll
            for (var g = 0u; g < GROUPS; g++) { // unroll
                let rows = sum[4u * m + i][g];
                four[i] += (rows.x + rows.y) + (rows.z + rows.w);
            }
        }
        workgroupBarrier();
        left[x / 4u][x % 4u][0][y] = four;
        workgroupBarrier();
        let key = j + key_of(4u * m);
        if (y == 0u && key < params.kv_len) {
            var all = vec4(0.0);
            for (var height = 0u; height < HEIGHT; height++) {
                all += left[x / 4u][x % 4u][0][height];
            }
            finish_dbias(batch, head, 0u, split, key / 4u, all);
        }
    }
}
