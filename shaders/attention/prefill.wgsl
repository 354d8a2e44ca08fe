// Softmax attention with an online softmax: o = softmax(scale q kT) v, one pass over the keys, eight keys a step.
//
// One workgroup owns 4 * WORKGROUP consecutive queries of one (batch, query head) and one range of the keys.
// One invocation owns four queries. A vec4 holds one number for each of them; a mat4x4 holds four dims of them, one
// query a column. q and o are walked once a step, so that eight keys share each visit; where they stay meanwhile is
// another file's matter. k and v are read at addresses that are uniform in the workgroup, and so is all control flow.
// Workgroup memory: none. Features: none.
// Source: Dao, "FlashAttention-2", 2023, algorithm 1.
const WORKGROUP: u32 = 32u;
const HEAD_DIM: u32 = 64u;
const V_DIM: u32 = 64u;
const LOG_N: bool = false; // the scale depends on the row's number of visible keys
const SOFTCAP: bool = false;
const ENTROPY: bool = false;
const ROW_MASK: bool = false; // there is a bias or a mask: every step may hide a key from a row
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const V_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const KEYS: u32 = 8u; // per step
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
    batch = batch_head / params.q_heads;
    head = batch_head % params.q_heads;
    let kv_head = head / params.group;
    let k_base = params.k_start + batch * params.k_batch + kv_head * params.k_head;
    let v_base = params.v_start + batch * params.v_batch + kv_head * params.v_head;

    // Which keys does each row see by its position?
    let first_row = tile * 4u * WORKGROUP;
    first = first_row + 4u * invocation;
    let last_row = min(first_row + 4u * WORKGROUP, params.q_len) - 1u;
    let len = i32(kv_len_of(batch));
    let diagonal = params.offset + select(0, len - i32(params.q_len), params.align_end == 1u);
    row = min(vec4(first) + vec4(0u, 1u, 2u, 3u), vec4(last_row));
    lo = max(vec4<i32>(row) + diagonal - params.left, vec4(0));
    hi = clamp(vec4<i32>(row) + diagonal + params.right + 1, vec4(0), vec4(len));
    let split_begin = i32(split * params.split_keys);
    let split_end = i32(min((split + 1u) * params.split_keys, params.kv_len));
    // Keys that some row of the workgroup sees, from a multiple of KEYS on; and keys that all of them see.
    let first_key = max(i32(first_row) + diagonal - params.left, 0);
    let begin = max(first_key - first_key % i32(KEYS), split_begin);
    let end = min(clamp(i32(last_row) + diagonal + params.right + 1, 0, len), split_end);
    let all_begin = max(i32(last_row) + diagonal - params.left, 0);
    let all_end = min(clamp(i32(first_row) + diagonal + params.right + 1, 0, len), split_end);

    // Start from the empty softmax.
    start_block(split, row_scales());
    row_max = vec4(LOWEST);
    sum = vec4(0.0);
    weighted = vec4(0.0);

    for (var j = begin; j < end; j += i32(KEYS)) {
        let edge = ROW_MASK || j < all_begin || j + i32(KEYS) > all_end;
        step(u32(j), u32(end) - 1u, edge, k_base, v_base);
    }

    write_rows(split);
}

// The scale of each row, from its number of visible keys where LOG_N.
fn row_scales() -> vec4<f32> {
    if (!LOG_N) {
        return row_scale_of(batch, head, row) * params.scale;
    }
    let n = max(visible_keys(batch, head, row, lo, hi), vec4(params.scale_floor));
    return params.scale * max(log(vec4<f32>(n)), vec4(params.scale_least));
}

// Four dims of the four queries, as they lie in q.
fn queries(c: u32) -> mat4x4<f32> {
    let base = vec4(params.q_start + batch * params.q_batch + head * params.q_head) + row * params.q_row;
    return mat4x4(load_q(base.x, c), load_q(base.y, c), load_q(base.z, c), load_q(base.w, c));
}

// Eight keys from j on, none past `last`. `edge`: some row does not see some of them.
fn step(j: u32, last: u32, edge: bool, k_base: u32, v_base: u32) {
    let key0 = min(vec4(j, j + 1u, j + 2u, j + 3u), vec4(last));
    let key1 = min(vec4(j + 4u, j + 5u, j + 6u, j + 7u), vec4(last));

    // Scores: s[key] = scale * q . k[key], for four rows at once.
    var s0 = vec4(0.0);
    var s1 = vec4(0.0);
    var s2 = vec4(0.0);
    var s3 = vec4(0.0);
    var s4 = vec4(0.0);
    var s5 = vec4(0.0);
    var s6 = vec4(0.0);
    var s7 = vec4(0.0);
    let k0 = vec4(k_base) + key0 * params.k_row;
    let k1 = vec4(k_base) + key1 * params.k_row;
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        let q4 = q_chunk(c);
        s0 += load_k(k0.x, c) * q4;
        s1 += load_k(k0.y, c) * q4;
        s2 += load_k(k0.z, c) * q4;
        s3 += load_k(k0.w, c) * q4;
        s4 += load_k(k1.x, c) * q4;
        s5 += load_k(k1.y, c) * q4;
        s6 += load_k(k1.z, c) * q4;
        s7 += load_k(k1.w, c) * q4;
    }
    if (SOFTCAP) {
        s0 = softcap(s0);
        s1 = softcap(s1);
        s2 = softcap(s2);
        s3 = softcap(s3);
        s4 = softcap(s4);
        s5 = softcap(s5);
        s6 = softcap(s6);
        s7 = softcap(s7);
    }

    // Which of them does each row see?
    var see0 = vec4(true);
    var see1 = vec4(true);
    var see2 = vec4(true);
    var see3 = vec4(true);
    var see4 = vec4(true);
    var see5 = vec4(true);
    var see6 = vec4(true);
    var see7 = vec4(true);
    if (edge) {
        see0 = bias_and_mask(&s0, j);
        see1 = bias_and_mask(&s1, j + 1u);
        see2 = bias_and_mask(&s2, j + 2u);
        see3 = bias_and_mask(&s3, j + 3u);
        see4 = bias_and_mask(&s4, j + 4u);
        see5 = bias_and_mask(&s5, j + 5u);
        see6 = bias_and_mask(&s6, j + 6u);
        see7 = bias_and_mask(&s7, j + 7u);
    }

    // The new maximum, and by how much what was summed so far shrinks.
    let new_max = max(max(max(max(row_max, s0), max(s1, s2)), max(max(s3, s4), max(s5, s6))), s7);
    let step_down = row_max - new_max;
    let shrink = exp(step_down);
    row_max = new_max;
    s0 -= new_max;
    s1 -= new_max;
    s2 -= new_max;
    s3 -= new_max;
    s4 -= new_max;
    s5 -= new_max;
    s6 -= new_max;
    s7 -= new_max;

    // Weights; exactly 0 where a row does not see the key.
    let zero = vec4(0.0);
    let p0 = select(zero, exp(s0), see0);
    let p1 = select(zero, exp(s1), see1);
    let p2 = select(zero, exp(s2), see2);
    let p3 = select(zero, exp(s3), see3);
    let p4 = select(zero, exp(s4), see4);
    let p5 = select(zero, exp(s5), see5);
    let p6 = select(zero, exp(s6), see6);
    let p7 = select(zero, exp(s7), see7);
    if (ENTROPY) {
        let terms = ((p0 * s0 + p1 * s1) + (p2 * s2 + p3 * s3)) + ((p4 * s4 + p5 * s5) + (p6 * s6 + p7 * s7));
        weighted = shrink * (weighted + step_down * sum) + terms;
    }
    sum = shrink * sum + (((p0 + p1) + (p2 + p3)) + ((p4 + p5) + (p6 + p7)));

    // o = shrink * o + p v.
    let v0 = vec4(v_base) + key0 * params.v_row;
    let v1 = vec4(v_base) + key1 * params.v_row;
    for (var c = 0u; c < V_CHUNKS; c++) {
        var o4 = o_chunk(c);
        o4 = mat4x4(o4[0] * shrink.x, o4[1] * shrink.y, o4[2] * shrink.z, o4[3] * shrink.w);
        if (edge) {
            o4 += seen_product(p0, load_v(v0.x, c), see0);
            o4 += seen_product(p1, load_v(v0.y, c), see1);
            o4 += seen_product(p2, load_v(v0.z, c), see2);
            o4 += seen_product(p3, load_v(v0.w, c), see3);
            o4 += seen_product(p4, load_v(v1.x, c), see4);
            o4 += seen_product(p5, load_v(v1.y, c), see5);
            o4 += seen_product(p6, load_v(v1.z, c), see6);
            o4 += seen_product(p7, load_v(v1.w, c), see7);
        } else {
            o4 += product(p0, load_v(v0.x, c));
            o4 += product(p1, load_v(v0.y, c));
            o4 += product(p2, load_v(v0.z, c));
            o4 += product(p3, load_v(v0.w, c));
            o4 += product(p4, load_v(v1.x, c));
            o4 += product(p5, load_v(v1.y, c));
            o4 += product(p6, load_v(v1.z, c));
            o4 += product(p7, load_v(v1.w, c));
        }
        set_o_chunk(c, o4);
    }
}

// The weights of four rows times four dims of one value.
fn product(p: vec4<f32>, value: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(p.x * value, p.y * value, p.z * value, p.w * value);
}

// The same where a row may not see the value, which may then be NaN: 0 * NaN would leak.
fn seen_product(p: vec4<f32>, value: vec4<f32>, see: vec4<bool>) -> mat4x4<f32> {
    let zero = vec4(0.0);
    return mat4x4(
        select(zero, p.x * value, see.x),
        select(zero, p.y * value, see.y),
        select(zero, p.z * value, see.z),
        select(zero, p.w * value, see.w),
    );
}

// Adds the bias of key j to a score of each row, and says which rows see the key; the others' scores become LOWEST.
fn bias_and_mask(s: ptr<function, vec4<f32>>, j: u32) -> vec4<bool> {
    var see = (vec4(i32(j)) >= lo) & (vec4(i32(j)) < hi);
    see = see & mask_at(batch, head, row, j, see);
    var score = *s;
    see = see & add_bias(&score, batch, head, row, j, see);
    *s = select(vec4(LOWEST), score, see);
    return see;
}

// cap * tanh(s / cap). WGSL promises tanh only to 1e-5: a series near 0, and exp elsewhere.
fn softcap(s: vec4<f32>) -> vec4<f32> {
    let x = s / params.softcap;
    let x2 = x * x;
    let series = x * (1.0 + x2 * (-1.0 / 3.0 + x2 * (2.0 / 15.0 + x2 * (-17.0 / 315.0 + x2 * (62.0 / 2835.0)))));
    let t = exp(-2.0 * abs(x));
    return params.softcap * select(sign(x) * (1.0 - t) / (1.0 + t), series, abs(x) < vec4(0.3));
}
