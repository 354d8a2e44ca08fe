// Softmax attention with an online softmax: o = softmax(scale q kT) v, one pass over the keys, 64 or 8 keys a step.
//
// One workgroup owns 4 * WORKGROUP consecutive queries of one (batch, query head) and one range of the keys.
// One invocation owns four queries. A vec4 holds one number for each of them; a mat4x4 holds four dims of them, of q one
// dim a column, of o one query a column. q and o are walked once a step; where they stay meanwhile is another file's
// matter. k and v are read at addresses that are uniform in the workgroup, and so is all control flow.
// Workgroup memory: none. Features: none.
// Source: Dao, "FlashAttention-2", 2023, algorithm 1.
const WORKGROUP: u32 = 32u;
const HEAD_DIM: u32 = 64u;
const V_DIM: u32 = 64u;
const LOG_N: bool = false; // the scale depends on the row's number of visible keys
const SOFTCAP: bool = false;
const ENTROPY: bool = false;
const ROW_MASK: bool = false; // there is a bias or a mask: every step may hide a key from a row
const WIDE: bool = true; // 64 keys a step, not 8
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const V_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const KEYS: u32 = select(8u, 64u, WIDE); // per step
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

// Four dims of the four queries, scaled, a dim a column.
fn scaled_queries(scale: vec4<f32>, c: u32) -> mat4x4<f32> {
    let base = vec4(params.q_start + batch * params.q_batch + head * params.q_head) + row * params.q_row;
    let rows = mat4x4(load_q(base.x, c), load_q(base.y, c), load_q(base.z, c), load_q(base.w, c));
    let dims = transpose(rows);
    return mat4x4(dims[0] * scale, dims[1] * scale, dims[2] * scale, dims[3] * scale);
}

// Numbers of four rows for each of eight keys.
struct Eight {
    k0: vec4<f32>,
    k1: vec4<f32>,
    k2: vec4<f32>,
    k3: vec4<f32>,
    k4: vec4<f32>,
    k5: vec4<f32>,
    k6: vec4<f32>,
    k7: vec4<f32>,
}

// Which of eight keys each of four rows sees.
struct Seen {
    k0: vec4<bool>,
    k1: vec4<bool>,
    k2: vec4<bool>,
    k3: vec4<bool>,
    k4: vec4<bool>,
    k5: vec4<bool>,
    k6: vec4<bool>,
    k7: vec4<bool>,
}

// KEYS keys from j on, none past `last`, eight by eight. `edge`: some row does not see some of them.
fn step(j: u32, last: u32, edge: bool, k_base: u32, v_base: u32) {
    let at0 = keys(j, last);
    let at1 = keys(j + 8u, last);
    let at2 = keys(j + 16u, last);
    let at3 = keys(j + 24u, last);
    let at4 = keys(j + 32u, last);
    let at5 = keys(j + 40u, last);
    let at6 = keys(j + 48u, last);
    let at7 = keys(j + 56u, last);

    // Scores: scale * q . k.
    var dot0 = Eight();
    var dot1 = Eight();
    var dot2 = Eight();
    var dot3 = Eight();
    var dot4 = Eight();
    var dot5 = Eight();
    var dot6 = Eight();
    var dot7 = Eight();
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        let q4 = q_chunk(c);
        dot0 = add_dots(dot0, q4, at0, k_base, c);
        if (WIDE) {
            dot1 = add_dots(dot1, q4, at1, k_base, c);
            dot2 = add_dots(dot2, q4, at2, k_base, c);
            dot3 = add_dots(dot3, q4, at3, k_base, c);
            dot4 = add_dots(dot4, q4, at4, k_base, c);
            dot5 = add_dots(dot5, q4, at5, k_base, c);
            dot6 = add_dots(dot6, q4, at6, k_base, c);
            dot7 = add_dots(dot7, q4, at7, k_base, c);
        }
    }

    // Softcap, bias, and which of the keys each row sees.
    let s0 = masked(dot0, j, edge);
    var s1: ScoredEight;
    var s2: ScoredEight;
    var s3: ScoredEight;
    var s4: ScoredEight;
    var s5: ScoredEight;
    var s6: ScoredEight;
    var s7: ScoredEight;
    var new_max = max(row_max, largest(s0.s));
    if (WIDE) {
        s1 = masked(dot1, j + 8u, edge);
        s2 = masked(dot2, j + 16u, edge);
        s3 = masked(dot3, j + 24u, edge);
        s4 = masked(dot4, j + 32u, edge);
        s5 = masked(dot5, j + 40u, edge);
        s6 = masked(dot6, j + 48u, edge);
        s7 = masked(dot7, j + 56u, edge);
        new_max = max(new_max, max(largest(s1.s), max(largest(s2.s), largest(s3.s))));
        new_max = max(new_max, max(max(largest(s4.s), largest(s5.s)), max(largest(s6.s), largest(s7.s))));
    }

    // The new maximum, and by how much what was summed so far shrinks.
    let step_down = row_max - new_max;
    let shrink = exp(step_down);
    row_max = new_max;
    weighted = shrink * (weighted + step_down * sum);
    sum *= shrink;

    // Weights; exactly 0 where a row does not see the key.
    let p0 = weights(s0, new_max);
    var p1: Eight;
    var p2: Eight;
    var p3: Eight;
    var p4: Eight;
    var p5: Eight;
    var p6: Eight;
    var p7: Eight;
    if (WIDE) {
        p1 = weights(s1, new_max);
        p2 = weights(s2, new_max);
        p3 = weights(s3, new_max);
        p4 = weights(s4, new_max);
        p5 = weights(s5, new_max);
        p6 = weights(s6, new_max);
        p7 = weights(s7, new_max);
    }

    // o = shrink * o + weights v.
    for (var c = 0u; c < V_CHUNKS; c++) {
        var o4 = o_chunk(c);
        o4 = mat4x4(o4[0] * shrink.x, o4[1] * shrink.y, o4[2] * shrink.z, o4[3] * shrink.w);
        if (edge) {
            o4 = add_seen_values(o4, p0, s0.see, at0, v_base, c);
            if (WIDE) {
                o4 = add_seen_values(o4, p1, s1.see, at1, v_base, c);
                o4 = add_seen_values(o4, p2, s2.see, at2, v_base, c);
                o4 = add_seen_values(o4, p3, s3.see, at3, v_base, c);
                o4 = add_seen_values(o4, p4, s4.see, at4, v_base, c);
                o4 = add_seen_values(o4, p5, s5.see, at5, v_base, c);
                o4 = add_seen_values(o4, p6, s6.see, at6, v_base, c);
                o4 = add_seen_values(o4, p7, s7.see, at7, v_base, c);
            }
        } else {
            o4 = add_values(o4, p0, at0, v_base, c);
            if (WIDE) {
                o4 = add_values(o4, p1, at1, v_base, c);
                o4 = add_values(o4, p2, at2, v_base, c);
                o4 = add_values(o4, p3, at3, v_base, c);
                o4 = add_values(o4, p4, at4, v_base, c);
                o4 = add_values(o4, p5, at5, v_base, c);
                o4 = add_values(o4, p6, at6, v_base, c);
                o4 = add_values(o4, p7, at7, v_base, c);
            }
        }
        set_o_chunk(c, o4);
    }
}

// The positions of eight keys from j on, none past `last`.
struct Keys {
    k0: vec4<u32>,
    k4: vec4<u32>,
}

fn keys(j: u32, last: u32) -> Keys {
    let four = vec4(j) + vec4(0u, 1u, 2u, 3u);
    return Keys(min(four, vec4(last)), min(four + 4u, vec4(last)));
}

// Adds to eight keys' scores the products of their chunk c with that of q.
fn add_dots(s: Eight, q4: mat4x4<f32>, at: Keys, k_base: u32, c: u32) -> Eight {
    let k0 = vec4(k_base) + at.k0 * params.k_row;
    let k4 = vec4(k_base) + at.k4 * params.k_row;
    return Eight(
        add_dot(s.k0, q4, load_k(k0.x, c)),
        add_dot(s.k1, q4, load_k(k0.y, c)),
        add_dot(s.k2, q4, load_k(k0.z, c)),
        add_dot(s.k3, q4, load_k(k0.w, c)),
        add_dot(s.k4, q4, load_k(k4.x, c)),
        add_dot(s.k5, q4, load_k(k4.y, c)),
        add_dot(s.k6, q4, load_k(k4.z, c)),
        add_dot(s.k7, q4, load_k(k4.w, c)),
    );
}

// A score of each row for one key, and which rows see the key.
struct Scored {
    s: vec4<f32>,
    see: vec4<bool>,
}

struct ScoredEight {
    s: Eight,
    see: Seen,
}

// softcap, and bias_and_mask if some row does not see some key, for the eight keys from j on.
fn masked(dots: Eight, j: u32, edge: bool) -> ScoredEight {
    var s = dots;
    if (SOFTCAP) {
        s = Eight(
            softcap(s.k0),
            softcap(s.k1),
            softcap(s.k2),
            softcap(s.k3),
            softcap(s.k4),
            softcap(s.k5),
            softcap(s.k6),
            softcap(s.k7),
        );
    }
    if (!edge) {
        let all = vec4(true);
        return ScoredEight(s, Seen(all, all, all, all, all, all, all, all));
    }
    let k0 = bias_and_mask(s.k0, j);
    let k1 = bias_and_mask(s.k1, j + 1u);
    let k2 = bias_and_mask(s.k2, j + 2u);
    let k3 = bias_and_mask(s.k3, j + 3u);
    let k4 = bias_and_mask(s.k4, j + 4u);
    let k5 = bias_and_mask(s.k5, j + 5u);
    let k6 = bias_and_mask(s.k6, j + 6u);
    let k7 = bias_and_mask(s.k7, j + 7u);
    return ScoredEight(
        Eight(k0.s, k1.s, k2.s, k3.s, k4.s, k5.s, k6.s, k7.s),
        Seen(k0.see, k1.see, k2.see, k3.see, k4.see, k5.see, k6.see, k7.see),
    );
}

fn largest(s: Eight) -> vec4<f32> {
    return max(max(max(s.k0, s.k1), max(s.k2, s.k3)), max(max(s.k4, s.k5), max(s.k6, s.k7)));
}

// The weights of eight keys, which also go into the rows' sums.
fn weights(scored: ScoredEight, m: vec4<f32>) -> Eight {
    let zero = vec4(0.0);
    let s = scored.s;
    let see = scored.see;
    let p = Eight(
        select(zero, exp(s.k0 - m), see.k0),
        select(zero, exp(s.k1 - m), see.k1),
        select(zero, exp(s.k2 - m), see.k2),
        select(zero, exp(s.k3 - m), see.k3),
        select(zero, exp(s.k4 - m), see.k4),
        select(zero, exp(s.k5 - m), see.k5),
        select(zero, exp(s.k6 - m), see.k6),
        select(zero, exp(s.k7 - m), see.k7),
    );
    sum += ((p.k0 + p.k1) + (p.k2 + p.k3)) + ((p.k4 + p.k5) + (p.k6 + p.k7));
    if (ENTROPY) {
        let low = p.k0 * (s.k0 - m) + p.k1 * (s.k1 - m) + p.k2 * (s.k2 - m) + p.k3 * (s.k3 - m);
        let high = p.k4 * (s.k4 - m) + p.k5 * (s.k5 - m) + p.k6 * (s.k6 - m) + p.k7 * (s.k7 - m);
        weighted += low + high;
    }
    return p;
}

// Adds to four rows of o, at chunk c, eight values by their weights.
fn add_values(o4: mat4x4<f32>, p: Eight, at: Keys, v_base: u32, c: u32) -> mat4x4<f32> {
    let v0 = vec4(v_base) + at.k0 * params.v_row;
    let v1 = vec4(v_base) + at.k4 * params.v_row;
    var sum4 = add_product(o4, p.k0, load_v(v0.x, c));
    sum4 = add_product(sum4, p.k1, load_v(v0.y, c));
    sum4 = add_product(sum4, p.k2, load_v(v0.z, c));
    sum4 = add_product(sum4, p.k3, load_v(v0.w, c));
    sum4 = add_product(sum4, p.k4, load_v(v1.x, c));
    sum4 = add_product(sum4, p.k5, load_v(v1.y, c));
    sum4 = add_product(sum4, p.k6, load_v(v1.z, c));
    return add_product(sum4, p.k7, load_v(v1.w, c));
}

// The same where rows do not see all of them.
fn add_seen_values(o4: mat4x4<f32>, p: Eight, see: Seen, at: Keys, v_base: u32, c: u32) -> mat4x4<f32> {
    let v0 = vec4(v_base) + at.k0 * params.v_row;
    let v1 = vec4(v_base) + at.k4 * params.v_row;
    var sum4 = add_seen_product(o4, p.k0, load_v(v0.x, c), see.k0);
    sum4 = add_seen_product(sum4, p.k1, load_v(v0.y, c), see.k1);
    sum4 = add_seen_product(sum4, p.k2, load_v(v0.z, c), see.k2);
    sum4 = add_seen_product(sum4, p.k3, load_v(v0.w, c), see.k3);
    sum4 = add_seen_product(sum4, p.k4, load_v(v1.x, c), see.k4);
    sum4 = add_seen_product(sum4, p.k5, load_v(v1.y, c), see.k5);
    sum4 = add_seen_product(sum4, p.k6, load_v(v1.z, c), see.k6);
    return add_seen_product(sum4, p.k7, load_v(v1.w, c), see.k7);
}

// Adds to four rows' scores the products of four dims of q with those of one key; `q4` has a dim a column.
fn add_dot(s: vec4<f32>, q4: mat4x4<f32>, key: vec4<f32>) -> vec4<f32> {
    return fma(q4[3], vec4(key.w), fma(q4[2], vec4(key.z), fma(q4[1], vec4(key.y), fma(q4[0], vec4(key.x), s))));
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
