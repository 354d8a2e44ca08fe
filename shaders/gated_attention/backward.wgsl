// Gradients of gated attention, tiled, from weights that are made again: of queries, of keys, or of values.
//
//   S = q kT, dA = (u * dout) vT;   dq = dS k, dk = dS^T q, dv = A^T (u * dout)
// A workgroup owns ROWS rows of one head and, of a chunk of tokens, one range of the rows that it walks, KEYS a step: of queries if
// OF_QUERIES, which walk keys, else of keys, which walk the queries of all heads that share theirs, head after head. `q` is what is
// owned and `k` what is walked, whichever they are. Its results are V_BLOCK chunks of four dims of a row, in o_tile; of values, other
// workgroups with other dims compute the same weights again. How WIDTH x HEIGHT invocations share the products is told in
// shared/tile.wgsl; dA is a product like S, over dims of values.
// Workgroup memory: at most 16 KiB. Features: none.
// Source: Dao, "FlashAttention-2", 2023, algorithm 2; Hua et al., "Transformer Quality in Linear Time", 2022, section 3.
const WIDTH: u32 = 16u;
const HEIGHT: u32 = 8u;
const GROUPS: u32 = 2u;
const COLUMNS: u32 = 2u;
const OWN_KEYS: u32 = 4u;
const SLAB: u32 = 16u;
const KEY_DIM: u32 = 128u;
const V_DIM: u32 = 1536u;
const V_BLOCK: u32 = 32u; // of results
const OF_QUERIES: bool = true;
const OF_VALUES: bool = false;
const SOFTMAX: bool = false; // relu squared otherwise
const DIVISOR: u32 = 2u; // see divisor.wgsl

const KEY_CHUNKS: u32 = (KEY_DIM + 3u) / 4u;
const HEAD_CHUNKS: u32 = KEY_CHUNKS;
const HEAD_SLABS: u32 = (KEY_DIM + SLAB - 1u) / SLAB;
const VALUE_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const VALUE_SLABS: u32 = (V_DIM + SLAB - 1u) / SLAB;
const V_CHUNKS: u32 = V_BLOCK; // of what is added up
const RESULT_DIM: u32 = select(KEY_DIM, V_DIM, OF_VALUES);
const RESULT_CHUNKS: u32 = (RESULT_DIM + 3u) / 4u;
const ROW_MASK: bool = false; // rows see keys by position alone
const LN_2: f32 = 0.6931471805599453;
// In place of the score of a pair that does not meet: its weight is 0.
const APART: f32 = -1.0e30;
const_assert KEY_DIM >= 1u && V_DIM >= 1u && V_BLOCK >= 1u && V_BLOCK <= RESULT_CHUNKS;

var<workgroup> first_met: array<array<vec4<i32>, HEIGHT>, GROUPS>; // of what is walked, the first that each row meets, and
var<workgroup> past_met: array<array<vec4<i32>, HEIGHT>, GROUPS>; // one past the last
var<workgroup> own_terms: array<array<array<vec4<f32>, HEIGHT>, GROUPS>, 4>; // what weights of owned queries have in common

var<private> walked_head: u32;
var<private> block_first: u32; // the first chunk of results

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
    let block = params.first_block + workgroup % params.blocks;
    let split = (workgroup / params.blocks) % params.splits;
    take_place(local);
    let own = owned_at(workgroup / params.blocks / params.splits);
    if (own.first >= own.end) {
        return; // the last chunk is short
    }
    owned = own;
    // The last block starts early enough to be whole.
    block_first = min(block * V_BLOCK, RESULT_CHUNKS - V_BLOCK);
    let band = band_of(own);

    // The rows to walk: of the chunk, and of the range.
    let walked_len = select(params.walked_len, own.kv_len, OF_QUERIES);
    let begin_walked = max(own.chunk * params.walked_chunk, split % params.row_splits * params.split_rows);
    let end_of_range = (split % params.row_splits + 1u) * params.split_rows;
    let past_walked = min(min((own.chunk + 1u) * params.walked_chunk, walked_len), end_of_range);
    let walk = walk_rows(own, band, begin_walked, past_walked);

    // What is known of the tile's rows.
    if (x == 0u) {
        for (var g = 0u; g < GROUPS; g++) { // unroll
            let rows = vec4<i32>(min(vec4(own.first + row_of(g)) + vec4(0u, 1u, 2u, 3u), vec4(own.end - 1u)));
            let past = clamp(rows + band.diagonal + band.after + 1, vec4(0), vec4(i32(past_walked)));
            first_met[g][y] = max(rows + band.diagonal - band.before, vec4(0));
            past_met[g][y] = select(past, vec4(0), rows >= vec4(own_end(own.kv_len)));
            if (OF_QUERIES && !(OF_VALUES)) {
                let terms = transpose(mat4x4(
                    terms_of(own.head, u32(rows.x)),
                    terms_of(own.head, u32(rows.y)),
                    terms_of(own.head, u32(rows.z)),
                    terms_of(own.head, u32(rows.w)),
                ));
                for (var i = 0u; i < 4u; i++) { // unroll
                    own_terms[i][g][y] = terms[i];
                }
            }
        }
    }
    start_keys();

    let first_head = select(own.head * params.group + split / params.row_splits * params.split_heads, own.head / params.group, OF_QUERIES);
    let heads = select(min(params.split_heads, (own.head + 1u) * params.group - first_head), 1u, OF_QUERIES);
    for (var head = 0u; head < heads; head++) {
        walked_head = first_head + head;
        let k_base = params.k_start + own.batch * params.k_batch + walked_head * params.k_head;
        take_steps(walk, k_base, select(k_base, 0u, OF_VALUES));
    }
    add_other_chunks();

    write_rows(split, block * V_BLOCK);
}

// Which rows meet which: an owned row r those from r + diagonal - before to r + diagonal + after.
struct Band {
    diagonal: i32,
    before: i32,
    after: i32,
}

fn band_of(own: Owned) -> Band {
    let shift = params.offset + select(0, i32(own.kv_len) - i32(params.q_len), params.align_end == 1u);
    let sides = select(vec2(params.right, params.left), vec2(params.left, params.right), OF_QUERIES);
    return Band(select(-shift, shift, OF_QUERIES), sides.x, sides.y);
}

// One past the last owned row that meets any, by how many keys there are.
fn own_end(keys: u32) -> i32 {
    return select(i32(keys), i32(params.own_len), OF_QUERIES);
}

// The steps from row `least` to before `most`. Where some owned row meets none, every step is an edge.
fn walk_rows(own: Owned, band: Band, least: u32, most: u32) -> Walk {
    let owned_last = i32(own.end) - 1;
    let last = min(owned_last, own_end(own.kv_len) - 1);
    let first_row = max(i32(own.first) + band.diagonal - band.before, 0);
    let begin = max(first_row - first_row % i32(KEYS), i32(least));
    let past = clamp(last + band.diagonal + band.after + 1, 0, i32(most));
    let end = select(past, 0, i32(own.first) > last);
    let all_begin = select(end, owned_last + band.diagonal - band.before, last == owned_last);
    let all_end = clamp(i32(own.first) + band.diagonal + band.after + 1, 0, i32(most));
    return walk_between(begin, max(end, begin), all_begin, all_end);
}

fn queries(part: u32, c: u32) -> mat4x4<f32> {
    let at = vec4(params.q_start + owned.batch * params.q_batch + owned.head * params.q_head) + own_rows(part) * params.q_row;
    return transpose(mat4x4(own_chunk(at.x, c), own_chunk(at.y, c), own_chunk(at.z, c), own_chunk(at.w, c)));
}

// With maps, a head of k is one of q.
fn own_chunk(base: u32, c: u32) -> vec4<f32> {
    return affine(load_q(base, c), select(K_MAP, Q_MAP, OF_QUERIES), owned.head, c);
}

fn key_chunk(base: u32, c: u32) -> vec4<f32> {
    return affine(load_k(base, c), select(Q_MAP, K_MAP, OF_QUERIES), owned.head, c);
}

// What the products are multiplied by; of values, rows are told by number.
fn value_chunk(base: u32, c: u32) -> vec4<f32> {
    if (OF_VALUES) {
        return incoming(walked_head, base, block_first + c);
    }
    return key_chunk(base, block_first + c);
}

// dA for the step's rows from j on, none past `last`.
fn weight_gradients(j: u32, last: u32) -> PerScore {
    var products: PerScore;
    for (var slab = 0u; slab < VALUE_SLABS; slab++) {
        workgroupBarrier();
        for (var part = 0u; part < LEFT_PARTS; part++) { // unroll
            if (has_left(part)) {
                put_left(part, four_of_values(true, own_rows(part), slab * SLAB_CHUNKS + left_chunk(part)));
            }
        }
        for (var part = 0u; part < KEY_PARTS; part++) { // unroll
            if (has_keys(part)) {
                let rows = min(keys_of(part, j), vec4(last));
                put_keys(part, four_of_values(false, rows, slab * SLAB_CHUNKS + key_chunk_of(part)));
            }
        }
        workgroupBarrier();
        products = add_scores(products);
    }
    return products;
}

// Four dims of four rows, owned or walked, a row of the matrix a dim; 0 past the last.
fn four_of_values(of_owned: bool, rows: vec4<u32>, c: u32) -> mat4x4<f32> {
    var dims = mat4x4<f32>();
    if (VALUE_SLABS * SLAB_CHUNKS == VALUE_CHUNKS || c < VALUE_CHUNKS) {
        if (of_owned == OF_QUERIES) {
            let head = select(walked_head, owned.head, OF_QUERIES);
            dims = mat4x4(incoming(head, rows.x, c), incoming(head, rows.y, c), incoming(head, rows.z, c), incoming(head, rows.w, c));
        } else {
            let head = select(owned.head, walked_head, OF_QUERIES);
            dims = mat4x4(value(head, rows.x, c), value(head, rows.y, c), value(head, rows.z, c), value(head, rows.w, c));
        }
    }
    return transpose(dims);
}

// KEYS rows from j on, none past `last`. `edge`: some owned row does not meet some of them.
fn step(j: u32, last: u32, edge: bool, k_base: u32, v_base: u32) {
    var products: PerScore;
    if (!OF_VALUES) {
        products = weight_gradients(j, last);
    }
    var s = scores(j, last, k_base);
    for (var i = 0u; i < OWN_KEYS; i++) { // unroll
        var walked: vec4<f32>;
        if (!OF_QUERIES) {
            walked = terms_of(walked_head, min(j + key_of(i), last));
        }
        for (var g = 0u; g < GROUPS; g++) { // unroll
            var terms = Terms(vec4(walked.x), vec4(walked.y), vec4(walked.z), vec4(walked.w));
            if (OF_QUERIES) {
                terms = Terms(own_terms[0][g][y], own_terms[1][g][y], own_terms[2][g][y], own_terms[3][g][y]);
            }
            if (edge) {
                let place = vec4(i32(j + key_of(i)));
                let met = (place >= first_met[g][y]) & (place < past_met[g][y]);
                s[i][g] = select(vec4(0.0), pair(select(vec4(APART), s[i][g], met), products[i][g], terms), met);
            } else {
                s[i][g] = pair(s[i][g], products[i][g], terms);
            }
        }
    }
    add_values(s, j, last, edge, v_base);
}

// What the weights of a query have in common: of a softmax, the scale of scores and the largest of them, both in units of log2; one
// over what weights are divided by; and what is subtracted from the gradients of weights.
struct Terms {
    scale: vec4<f32>,
    largest: vec4<f32>,
    factor: vec4<f32>,
    delta: vec4<f32>,
}

// Of four pairs, the weight, or the gradient of the score.
fn pair(s: vec4<f32>, product: vec4<f32>, terms: Terms) -> vec4<f32> {
    if (SOFTMAX) {
        let weight = exp2(s * terms.scale - terms.largest) * terms.factor;
        if (OF_VALUES) {
            return weight;
        }
        return weight * (terms.scale * LN_2) * (product - terms.delta);
    }
    // NaN stays.
    let positive = select(s, vec4(0.0), s <= vec4(0.0));
    if (OF_VALUES) {
        return positive * positive * terms.factor;
    }
    return 2.0 * positive * terms.factor * (product - terms.delta);
}

// The tile's results, of chunks from `first` on; those before it belong to the block before.
fn write_rows(split: u32, first: u32) {
    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var r = 0u; r < 4u; r++) { // unroll
            let row = owned.first + row_of(g) + r;
            if (row < owned.end) {
                for (var c = 0u; c < COLUMNS; c++) { // unroll
                    let chunk = block_first + x + c * WIDTH;
                    if (x + c * WIDTH < V_CHUNKS && chunk >= first) {
                        finish_row(row, split, chunk, o_tile[4u * g + r][c]);
                    }
                }
            }
        }
    }
}
