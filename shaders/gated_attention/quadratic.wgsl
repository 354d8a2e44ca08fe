// Gated attention: o = u * (A v) with A = relu(scale q kT)^2 / divisor or softmax(scale q kT), one pass over the keys,
// KEYS a step, for adapters on a CPU. With CHUNKED, A reaches no further than a chunk of tokens and the chunks' states add the rest.
//
// One workgroup owns 4 * WORKGROUP consecutive queries of one (batch, query head), one range of the keys, and V_BLOCK
// chunks of four value dims; workgroups with other value dims compute the same scores again.
// One invocation owns four queries. A vec4 holds one number for each of them; a mat4x4 holds four dims of them, its
// columns being the dims. How the invocations come by k and v is another file's matter. All control flow is uniform in the
// workgroup.
// Workgroup memory: none. Features: none; subgroups where keys_subgroup.wgsl is appended.
// Source: Hua et al., "Transformer Quality in Linear Time", 2022, sections 3 and 4.
const WORKGROUP: u32 = 8u;
const KEY_DIM: u32 = 128u;
const V_DIM: u32 = 1536u;
const V_BLOCK: u32 = 32u;
const KEYS: u32 = 8u; // of a step
const SPAN: u32 = 1u; // chunks of four dims that are held at a time
const UNROLL: bool = false; // the loops over chunks, so that q and o are registers
const SOFTMAX: bool = false; // relu squared otherwise
const LOG_N: bool = false; // the scale grows with log n, n being the row's number of visible keys
const DIVISOR: u32 = 2u; // see divisor.wgsl
const CHUNKED: bool = false;

const ROW_MASK: bool = false; // rows see keys by position alone
const KEY_CHUNKS: u32 = (KEY_DIM + 3u) / 4u;
const O_CHUNKS: u32 = (V_DIM + 3u) / 4u; // of a row of v and o
const KEY_SPANS: u32 = (KEY_CHUNKS + SPAN - 1u) / SPAN;
const V_SPANS: u32 = (V_BLOCK + SPAN - 1u) / SPAN;
const_assert KEY_DIM >= 1u && V_DIM >= 1u && V_BLOCK >= 1u && V_BLOCK <= O_CHUNKS;

// No score is below this, nor above its opposite. Where a row's maximum starts; differences of two such stay finite.
const LOWEST: f32 = -1.0e38;

// The four rows of this invocation.
var<private> row: vec4<u32>; // query positions
var<private> lo: vec4<i32>; // first visible key by position
var<private> hi: vec4<i32>; // one past the last
var<private> visible: vec4<f32>; // keys that the row sees, in all ranges
var<private> scale: vec4<f32>; // of the scores
var<private> q_beta: vec4<f32>; // q, scaled, times the beta of the keys: where every score starts
var<private> o_block: array<mat4x4<f32>, V_BLOCK>; // not yet divided or gated
var<private> row_max: vec4<f32>; // if SOFTMAX
var<private> sum: vec4<f32>; // of the weights before division
// Where they lie; uniform.
var<private> lane: u32; // the invocation's index in the workgroup
var<private> batch: u32;
var<private> head: u32;
var<private> end_row: u32; // rows from here on belong to other workgroups
var<private> v_first: u32; // first chunk of value dims
var<private> v_own: u32; // chunks before this one, counted from v_first, belong to the block before

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
    let block = params.first_block + workgroup % params.blocks;
    let split = (workgroup / params.blocks) % params.splits;
    let tile = (workgroup / params.blocks / params.splits) % params.row_tiles;
    let batch_head = workgroup / params.blocks / params.splits / params.row_tiles;
    let own_batch = batch_head / params.q_heads;
    let own_head = batch_head % params.q_heads;
    batch = own_batch;
    head = own_head;
    lane = invocation;
    let kv_head = own_head / params.group;
    // The last block starts early enough to be whole.
    v_first = min(block * V_BLOCK, O_CHUNKS - V_BLOCK);
    v_own = block * V_BLOCK - v_first;
    let k_base = params.k_start + own_batch * params.k_batch + kv_head * params.k_head;
    let v_base = params.v_start + own_batch * params.v_batch + kv_head * params.v_head;

    // Which rows and which keys?
    var first_row = tile * 4u * WORKGROUP;
    var first_key = split * params.split_keys;
    var end_key = min(first_key + params.split_keys, params.kv_len);
    var own_end = params.q_len; // uniform to Tint too, which takes what is private for not
    let chunk = tile / params.chunk_tiles;
    if (CHUNKED) {
        first_key = chunk * params.chunk;
        end_key = min(first_key + params.chunk, params.kv_len);
        first_row = first_key + (tile % params.chunk_tiles) * 4u * WORKGROUP;
        own_end = end_key;
        if (first_row >= own_end) {
            return; // the last chunk is short
        }
    }
    end_row = own_end;
    let last_row = min(first_row + 4u * WORKGROUP, own_end) - 1u;

    // Which of the keys does each row see by its position?
    let len = i32(kv_len_of(own_batch));
    let diagonal = params.offset + select(0, len - i32(params.q_len), params.align_end == 1u);
    row = min(vec4(first_row + 4u * invocation) + vec4(0u, 1u, 2u, 3u), vec4(last_row));
    lo = max(vec4<i32>(row) + diagonal - params.left, vec4(0));
    hi = clamp(vec4<i32>(row) + diagonal + params.right + 1, vec4(0), vec4(len));
    visible = vec4<f32>(max(hi - lo, vec4(0)));
    if (CHUNKED) {
        visible = vec4(f32(len)); // of its chunk or of the others
    }
    hi = min(hi, vec4(i32(end_key)));
    // Keys that some row of the workgroup sees, from a multiple of KEYS on; and keys that all of them see.
    let some_begin = max(i32(first_row) + diagonal - params.left, 0);
    let begin = max(some_begin - some_begin % i32(KEYS), i32(first_key));
    let end = min(clamp(i32(last_row) + diagonal + params.right + 1, 0, len), i32(end_key));
    let all_begin = i32(last_row) + diagonal - params.left;
    let all_end = clamp(i32(first_row) + diagonal + params.right + 1, 0, len);

    scale = row_scales();
    start_queries();
    for (var c = 0u; c < V_BLOCK; c++) { // unroll if UNROLL
        o_block[c] = mat4x4<f32>();
    }
    row_max = vec4(LOWEST);
    sum = vec4(0.0);

    take_steps(walk_between(begin, end, all_begin, all_end), k_base, v_base);
    add_other_chunks(kv_head, chunk, u32(len));

    write_rows(split, first_row + 4u * invocation);
}

fn write_rows(split: u32, first: u32) {
    for (var r = 0u; r < 4u; r++) {
        if (v_first == 0u && first + r < end_row) {
            finish_row(batch, head, first + r, split, row_max[r], visible[r], sum[r]);
        }
    }
    for (var b = 0u; b < V_BLOCK; b++) { // unroll if UNROLL
        let rows = transpose(o_block[b]);
        for (var r = 0u; r < 4u; r++) {
            if (b >= v_own && first + r < end_row) {
                finish_o(batch, head, first + r, split, v_first + b, rows[r], visible[r], sum[r]);
            }
        }
    }
}

fn row_scales() -> vec4<f32> {
    if (LOG_N) {
        return params.scale * log(max(visible, vec4(f32(params.scale_floor))));
    }
    return vec4(params.scale);
}

// An affine map of the keys moves to the queries: q . (gamma z + beta) = (q gamma) . z + q . beta.
fn start_queries() {
    q_beta = vec4(0.0);
    for (var c = 0u; c < KEY_CHUNKS; c++) { // unroll if UNROLL
        let q4 = queries(c);
        q_beta += scale * (q4 * affine_beta(K_MAP, head, c));
        keep_q_chunk(c, q4);
    }
}

// Four dims of the queries.
fn queries(c: u32) -> mat4x4<f32> {
    let base = vec4(params.q_start + batch * params.q_batch + head * params.q_head) + row * params.q_row;
    let gamma = affine_gamma(Q_MAP, head, c);
    let beta = affine_beta(Q_MAP, head, c);
    return transpose(mat4x4(
        load_q(base.x, c) * gamma + beta,
        load_q(base.y, c) * gamma + beta,
        load_q(base.z, c) * gamma + beta,
        load_q(base.w, c) * gamma + beta,
    ));
}

// The same, scaled, and times the gamma of the keys.
fn scaled_queries(c: u32, q4: mat4x4<f32>) -> mat4x4<f32> {
    let gamma = affine_gamma(K_MAP, head, c);
    return mat4x4(
        q4[0] * (scale * gamma.x),
        q4[1] * (scale * gamma.y),
        q4[2] * (scale * gamma.z),
        q4[3] * (scale * gamma.w),
    );
}

fn key_chunk(base: u32, c: u32) -> vec4<f32> {
    return load_k(base, c);
}

// Of SPAN chunks of k or v from some chunk on, chunk h of the step's key i is at KEYS * h + i.
alias Held = array<vec4<f32>, KEYS * SPAN>;

// KEYS keys from j on, none past `last`. `edge`: some row does not see some of them.
fn step(j: u32, last: u32, edge: bool, k_base: u32, v_base: u32) {
    // Scores: scale * q . k, for four rows at once.
    var s: array<vec4<f32>, KEYS>;
    for (var i = 0u; i < KEYS; i++) { // unroll
        s[i] = q_beta;
    }
    for (var b = 0u; b < KEY_SPANS; b++) { // unroll if UNROLL
        let keys = hold_keys(k_base, j, last, b * SPAN);
        for (var h = 0u; h < SPAN; h++) { // unroll
            if (b * SPAN + h < KEY_CHUNKS) {
                let q4 = q_chunk(b * SPAN + h);
                for (var i = 0u; i < KEYS; i++) { // unroll
                    let key = keys[KEYS * h + i];
                    for (var x = 0u; x < 4u; x++) { // unroll
                        s[i] = fma(q4[x], vec4(key[x]), s[i]);
                    }
                }
            }
        }
    }

    // Which of the keys does each row see?
    var see: array<vec4<bool>, KEYS>;
    if (edge) {
        for (var i = 0u; i < KEYS; i++) { // unroll
            see[i] = sees(j + i);
            s[i] = select(vec4(LOWEST), s[i], see[i]);
        }
    }

    // Weights; exactly 0 where a row does not see the key. The softmax's are relative to the new maximum, by which what
    // was summed so far shrinks.
    var shrink = vec4(1.0);
    if (SOFTMAX) {
        var new_max = row_max;
        for (var i = 0u; i < KEYS; i++) { // unroll
            new_max = max(new_max, s[i]);
        }
        shrink = exp(row_max - new_max);
        row_max = new_max;
        sum *= shrink;
    }
    var p: array<vec4<f32>, KEYS>;
    for (var i = 0u; i < KEYS; i++) { // unroll
        p[i] = weight(s[i]);
        if (edge) {
            p[i] = select(vec4(0.0), p[i], see[i]);
        }
        sum += p[i];
    }

    // o = shrink * o + p v.
    for (var b = 0u; b < V_SPANS; b++) { // unroll if UNROLL
        let values = hold_values(v_base, j, last, v_first + b * SPAN);
        for (var h = 0u; h < SPAN; h++) { // unroll
            if (b * SPAN + h < V_BLOCK) {
                var o4 = o_block[min(b * SPAN + h, V_BLOCK - 1u)];
                if (SOFTMAX) {
                    o4 = mat4x4(o4[0] * shrink, o4[1] * shrink, o4[2] * shrink, o4[3] * shrink);
                }
                for (var i = 0u; i < KEYS; i++) { // unroll
                    if (edge) {
                        o4 = add_seen_product(o4, p[i], values[KEYS * h + i], see[i]);
                    } else {
                        o4 = add_product(o4, p[i], values[KEYS * h + i]);
                    }
                }
                o_block[min(b * SPAN + h, V_BLOCK - 1u)] = o4;
            }
        }
    }
}

fn sees(j: u32) -> vec4<bool> {
    return (vec4(i32(j)) >= lo) & (vec4(i32(j)) < hi);
}

fn weight(s: vec4<f32>) -> vec4<f32> {
    if (SOFTMAX) {
        return exp(s - row_max);
    }
    return s * max(s, vec4(0.0)); // NaN stays
}
