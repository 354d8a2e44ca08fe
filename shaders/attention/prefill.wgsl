// Softmax attention with an online softmax: o = softmax(scale q kT) v, one pass over the keys, KEYS of them a step.
//
// One workgroup owns 4 * WORKGROUP consecutive queries of one (batch, query head) and one range of the keys.
// One invocation owns four queries. A vec4 holds one number for each of them; a mat4x4 holds four dims of them, of q one
// dim a column, of o one query a column. Where q and o stay meanwhile, and how the invocations come by k and v, are other
// files' matters. All control flow is uniform in the workgroup.
// Workgroup memory: none. Features: none; subgroups where keys_subgroup.wgsl is appended.
// Source: Dao, "FlashAttention-2", 2023, algorithm 1.
const WORKGROUP: u32 = 8u;
const HEAD_DIM: u32 = 64u;
const V_DIM: u32 = 64u;
const KEYS: u32 = 8u; // of a step
const SPAN: u32 = 1u; // chunks of four dims that are held at a time
const UNROLL: bool = false; // the loops over chunks, so that q and o are registers
const PARTS: u32 = 1u; // sums that make a dot product: more of them depend less on each other
const LOG_N: bool = false; // the scale depends on the row's number of visible keys
const SOFTCAP: bool = false;
const ENTROPY: bool = false;
const ROW_MASK: bool = false; // there is a bias or a mask: every step may hide a key from a row
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const V_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const HEAD_SPANS: u32 = (HEAD_CHUNKS + SPAN - 1u) / SPAN;
const V_SPANS: u32 = (V_CHUNKS + SPAN - 1u) / SPAN;
const_assert HEAD_DIM >= 1u && V_DIM >= 1u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    q_heads: u32,
    group: u32, // query heads per kv head
    q_len: u32, // tokens
    kv_len: u32, // tokens
    query_tiles: u32, // ceil(q_len / (4 * WORKGROUP))
    splits: u32, // ranges that the keys are cut into
    split_keys: u32, // keys per range, a multiple of KEYS
    offset: i32, // of the diagonal to the right of j = i, tokens
    align_end: u32, // 1: the diagonal moves by (visible keys - q_len) as well
    left: i32, // keys visible left of the diagonal
    right: i32, // and right of it
    scale: f32, // or its factor, if LOG_N: scale * max(log(max(n, scale_floor)), scale_least)
    scale_floor: u32,
    scale_least: f32,
    softcap: f32,
    q_start: u32, // starts and strides in elements
    q_batch: u32,
    q_head: u32,
    q_row: u32,
    k_start: u32,
    k_batch: u32,
    k_head: u32,
    k_row: u32,
    v_start: u32,
    v_batch: u32,
    v_head: u32,
    v_row: u32,
    o_start: u32,
    o_batch: u32,
    o_head: u32,
    o_row: u32,
    lse_start: u32,
    lse_batch: u32,
    lse_head: u32,
    lse_row: u32,
    entropy_start: u32,
    entropy_batch: u32,
    entropy_head: u32,
    entropy_row: u32,
    bias_start: u32,
    bias_batch: u32,
    bias_head: u32,
    bias_row: u32,
    mask_start: u32,
    mask_batch: u32,
    mask_head: u32,
    mask_row: u32,
    row_scale_start: u32,
    row_scale_batch: u32,
    row_scale_head: u32,
    row_scale_row: u32,
    kv_lens_start: u32,
    kv_lens_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<Elem>; // [batch, q_heads, q_len, head_dim]
@group(0) @binding(2) var<storage, read> k: array<Elem>; // [batch, kv_heads, kv_len, head_dim]
@group(0) @binding(3) var<storage, read> v: array<Elem>; // [batch, kv_heads, kv_len, v_dim]

// Where a row's maximum starts, and what no biased score is below: 2^30 times it is still finite.
const LOWEST: f32 = -1.0e28;

// The four rows of this invocation.
var<private> first: u32; // query position of the first; those from q_len on are not written
var<private> row: vec4<u32>; // query positions, clamped to the last
var<private> lo: vec4<i32>; // first visible key by position
var<private> hi: vec4<i32>; // one past the last
var<private> row_max: vec4<f32>;
var<private> sum: vec4<f32>; // of exp(score - row_max)
var<private> weighted: vec4<f32>; // sum of exp(score - row_max) * (score - row_max), for the entropy
var<private> lane: u32; // the invocation's index in the workgroup
// Where the rows lie; uniform.
var<private> batch: u32;
var<private> head: u32;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    if (workgroup >= params.end_workgroup) {
        return;
    }
    let split = workgroup % params.splits;
    let tile = (workgroup / params.splits) % params.query_tiles;
    let batch_head = workgroup / params.splits / params.query_tiles;
    let own_batch = batch_head / params.q_heads;
    let own_head = batch_head % params.q_heads;
    batch = own_batch;
    head = own_head;
    lane = invocation;
    let kv_head = own_head / params.group;
    let k_base = params.k_start + own_batch * params.k_batch + kv_head * params.k_head;
    let v_base = params.v_start + own_batch * params.v_batch + kv_head * params.v_head;

    // Which keys does each row see by its position?
    let first_row = tile * 4u * WORKGROUP;
    first = first_row + 4u * invocation;
    let last_row = min(first_row + 4u * WORKGROUP, params.q_len) - 1u;
    let len = i32(kv_len_of(own_batch));
    let diagonal = params.offset + select(0, len - i32(params.q_len), params.align_end == 1u);
    row = min(vec4(first) + vec4(0u, 1u, 2u, 3u), vec4(last_row));
    lo = max(vec4<i32>(row) + diagonal - params.left, vec4(0));
    hi = clamp(vec4<i32>(row) + diagonal + params.right + 1, vec4(0), vec4(len));
    let split_begin = i32(split * params.split_keys);
    let split_end = i32(min((split + 1u) * params.split_keys, params.kv_len));
    // Steps from `begin` on hold every key that some row of the workgroup sees; those of [whole_begin, whole_end) hold
    // only keys that all of them see.
    let first_key = max(i32(first_row) + diagonal - params.left, 0);
    let begin = max(first_key - first_key % i32(KEYS), split_begin);
    let end = min(clamp(i32(last_row) + diagonal + params.right + 1, 0, len), split_end);
    let all_begin = max(max(i32(last_row) + diagonal - params.left, 0), begin);
    let all_end = min(clamp(i32(first_row) + diagonal + params.right + 1, 0, len), end);
    let whole_begin = min(begin + steps(all_begin - begin) * i32(KEYS), end);
    let whole = select(max(all_end - whole_begin, 0) / i32(KEYS), 0, ROW_MASK);
    let whole_end = whole_begin + whole * i32(KEYS);
    let left_edges = steps(whole_begin - begin);
    let edges = left_edges + steps(end - whole_end);

    // Start from the empty softmax.
    start_block(split, row_scales());
    row_max = vec4(LOWEST);
    sum = vec4(0.0);
    weighted = vec4(0.0);

    // Whole steps first; then those on the edges, where a row may not see a key.
    if (!ROW_MASK) {
        for (var t = 0; t < whole; t++) {
            step(u32(whole_begin + t * i32(KEYS)), u32(end) - 1u, false, k_base, v_base);
        }
    }
    for (var t = 0; t < edges; t++) {
        let j = select(whole_end + (t - left_edges) * i32(KEYS), begin + t * i32(KEYS), t < left_edges);
        step(u32(j), u32(end) - 1u, true, k_base, v_base);
    }

    write_rows(split);
}

// Steps that `keys` keys take.
fn steps(keys: i32) -> i32 {
    return (max(keys, 0) + i32(KEYS) - 1) / i32(KEYS);
}

// The scale of each row, from its number of visible keys where LOG_N.
fn row_scales() -> vec4<f32> {
    if (!LOG_N) {
        return row_scale_of(batch, head, row) * params.scale;
    }
    let n = max(visible_keys(batch, head, row, lo, hi), vec4(params.scale_floor));
    return params.scale * max(log(vec4<f32>(n)), vec4(params.scale_least));
}

// Four dims of four queries, scaled, a dim a column.
fn scaled_queries(scale: vec4<f32>, c: u32) -> mat4x4<f32> {
    let base = vec4(params.q_start + batch * params.q_batch + head * params.q_head) + row * params.q_row;
    let rows = mat4x4(load_q(base.x, c), load_q(base.y, c), load_q(base.z, c), load_q(base.w, c));
    let dims = transpose(rows);
    return mat4x4(dims[0] * scale, dims[1] * scale, dims[2] * scale, dims[3] * scale);
}

// Of SPAN chunks of k or v from some chunk on, chunk h of the step's key i is at KEYS * h + i.
alias Held = array<vec4<f32>, KEYS * SPAN>;

// KEYS keys from j on, none past `last`. `edge`: some row does not see some of them.
fn step(j: u32, last: u32, edge: bool, k_base: u32, v_base: u32) {
    // Scores: scale * q . k.
    var dots: array<array<vec4<f32>, PARTS>, KEYS>;
    for (var b = 0u; b < HEAD_SPANS; b++) { // unroll if UNROLL
        let keys = hold_keys(k_base, j, last, b * SPAN);
        for (var h = 0u; h < SPAN; h++) { // unroll
            if (b * SPAN + h < HEAD_CHUNKS) {
                let q4 = q_chunk(b * SPAN + h);
                for (var i = 0u; i < KEYS; i++) { // unroll
                    let key = keys[KEYS * h + i];
                    for (var x = 0u; x < 4u; x++) { // unroll
                        dots[i][x % PARTS] = fma(q4[x], vec4(key[x]), dots[i][x % PARTS]);
                    }
                }
            }
        }
    }
    var s: array<vec4<f32>, KEYS>;
    for (var i = 0u; i < KEYS; i++) { // unroll
        s[i] = dots[i][0];
        for (var x = 1u; x < PARTS; x++) { // unroll
            s[i] += dots[i][x];
        }
    }

    // Softcap, bias, and which of the keys each row sees.
    var see: array<vec4<bool>, KEYS>;
    for (var i = 0u; i < KEYS; i++) { // unroll
        if (SOFTCAP) {
            s[i] = softcap(s[i]);
        }
        if (edge) {
            let scored = bias_and_mask(s[i], j + i);
            s[i] = scored.s;
            see[i] = scored.see;
        }
    }

    // The new maximum, and by how much what was summed so far shrinks.
    var new_max = row_max;
    for (var i = 0u; i < KEYS; i++) { // unroll
        new_max = max(new_max, s[i]);
    }
    let step_down = row_max - new_max;
    let shrink = exp(step_down);
    row_max = new_max;
    weighted = shrink * (weighted + step_down * sum);
    sum *= shrink;

    // Weights; exactly 0 where a row does not see the key.
    var p: array<vec4<f32>, KEYS>;
    for (var i = 0u; i < KEYS; i++) { // unroll
        let below = s[i] - new_max;
        p[i] = exp(below);
        if (edge) {
            p[i] = select(vec4(0.0), p[i], see[i]);
        }
        sum += p[i];
        if (ENTROPY) {
            weighted += p[i] * below;
        }
    }

    // o = shrink * o + weights v.
    for (var b = 0u; b < V_SPANS; b++) { // unroll if UNROLL
        let values = hold_values(v_base, j, last, b * SPAN);
        for (var h = 0u; h < SPAN; h++) { // unroll
            if (b * SPAN + h < V_CHUNKS) {
                var o4 = o_chunk(b * SPAN + h);
                o4 = mat4x4(o4[0] * shrink.x, o4[1] * shrink.y, o4[2] * shrink.z, o4[3] * shrink.w);
                for (var i = 0u; i < KEYS; i++) { // unroll
                    if (edge) {
                        o4 = add_seen_product(o4, p[i], values[KEYS * h + i], see[i]);
                    } else {
                        o4 = add_product(o4, p[i], values[KEYS * h + i]);
                    }
                }
                set_o_chunk(b * SPAN + h, o4);
            }
        }
    }
}

// A score of each row for one key, and which rows see the key.
struct Scored {
    s: vec4<f32>,
    see: vec4<bool>,
}

// Adds to four rows of o their weights times four dims of one value.
fn add_product(o4: mat4x4<f32>, p: vec4<f32>, value: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(
        fma(vec4(p.x), value, o4[0]),
        fma(vec4(p.y), value, o4[1]),
        fma(vec4(p.z), value, o4[2]),
        fma(vec4(p.w), value, o4[3]),
    );
}

// The same where a row may not see the value, which may then be NaN: 0 * NaN would leak.
fn add_seen_product(o4: mat4x4<f32>, p: vec4<f32>, value: vec4<f32>, see: vec4<bool>) -> mat4x4<f32> {
    let sum = add_product(o4, p, value);
    return mat4x4(
        select(o4[0], sum[0], see.x),
        select(o4[1], sum[1], see.y),
        select(o4[2], sum[2], see.z),
        select(o4[3], sum[3], see.w),
    );
}

// Adds the bias of key j to a score of each row, and says which rows see the key; the others' scores become LOWEST.
fn bias_and_mask(s: vec4<f32>, j: u32) -> Scored {
    var see = (vec4(i32(j)) >= lo) & (vec4(i32(j)) < hi);
    see = see & mask_at(batch, head, row, j, see);
    var score = s;
    see = see & add_bias(&score, batch, head, row, j, see);
    return Scored(select(vec4(LOWEST), score, see), see);
}

// cap * tanh(s / cap). WGSL promises tanh only to 1e-5: a series near 0, and exp elsewhere.
fn softcap(s: vec4<f32>) -> vec4<f32> {
    let x = s / params.softcap;
    let x2 = x * x;
    let series = x * (1.0 + x2 * (-1.0 / 3.0 + x2 * (2.0 / 15.0 + x2 * (-17.0 / 315.0 + x2 * (62.0 / 2835.0)))));
    let t = exp(-2.0 * abs(x));
    return params.softcap * select(sign(x) * (1.0 - t) / (1.0 + t), series, abs(x) < vec4(0.3));
}
