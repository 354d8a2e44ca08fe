// Rows of linear attention: o = phi(q)T S / (phi(q).z + eps), from the state of what comes before the row's chunk and,
// where CAUSAL, from the chunk's own keys up to the row, eight a step.
//
// One workgroup owns 4 * WORKGROUP consecutive queries of one chunk of one (batch, query head).
// One invocation owns four queries. A vec4 holds one number for each of them; a mat4x4 holds four dims of them, its
// columns being the dims. The state, keys and values are read at addresses that are uniform in the workgroup.
// Workgroup memory: none. Features: none.
// Source: Katharopoulos et al., "Transformers are RNNs", 2020; Sun et al., "Retentive Network", 2023, section 2.2 (chunks).
const WORKGROUP: u32 = 8u;
const HEAD_DIM: u32 = 64u; // width of q and k as bound
const V_DIM: u32 = 64u;
const FEATURES: u32 = 64u;
const HEADERS: u32 = 1u; // vec4s before a feature's value dims in a state
const CAUSAL: bool = true;
const NORMALIZED: bool = true;
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const V_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const ROW: u32 = HEADERS + V_CHUNKS; // vec4s per feature of a state
const KEYS: u32 = 8u; // per step
const_assert HEAD_DIM >= 1u && V_DIM >= 1u;

// The four rows of this invocation.
var<private> row: vec4<u32>; // query positions
var<private> q_base: vec4<u32>; // where they start
var<private> o_block: array<mat4x4<f32>, V_CHUNKS>; // not yet divided
var<private> sum: vec4<f32>; // of the weights
var<private> lane: u32; // the invocation's index in the workgroup

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
    let tile = workgroup % params.tiles;
    let chunk = (workgroup / params.tiles) % params.chunks;
    let group_head = workgroup / params.tiles / params.chunks;
    let local_head = group_head / params.group;
    let batch = (params.first_head + local_head) / params.kv_heads;
    let kv_head = (params.first_head + local_head) % params.kv_heads;
    let head = kv_head * params.group + group_head % params.group;
    let chunk_begin = (params.first_chunk + chunk) * params.chunk_len;
    let first_row = chunk_begin + tile * 4u * WORKGROUP;
    let end_row = min(min(first_row + 4u * WORKGROUP, chunk_begin + params.chunk_len), params.q_len);
    if (first_row >= end_row) {
        return;
    }
    lane = invocation;
    row = min(vec4(first_row + 4u * invocation) + vec4(0u, 1u, 2u, 3u), vec4(end_row - 1u));

    // Start from nothing, add what came before, then the chunk's own keys.
    q_base = vec4(params.q_start + batch * params.q_batch + head * params.q_head) + row * params.q_row;
    for (var c = 0u; c < V_CHUNKS; c++) {
        o_block[c] = mat4x4<f32>();
    }
    sum = vec4(0.0);
    add_state((local_head * params.slots + params.first_slot + chunk * params.slot_step) * FEATURES * ROW);
    if (CAUSAL) {
        add_own_keys(batch, kv_head, chunk_begin, first_row, end_row);
    }

    // Divide, and write.
    let base = params.o_start + batch * params.o_batch + head * params.o_head;
    let own_row = first_row + 4u * invocation;
    for (var c = 0u; c < V_CHUNKS; c++) {
        let rows = transpose(finish(o_block[c]));
        for (var r = 0u; r < 4u; r++) {
            if (own_row + r < end_row) {
                store_o(base + (own_row + r) * params.o_row, c, rows[r]);
            }
        }
    }
}

// Four dims of the four rows, as the map has them.
fn load_rows(chunk: u32) -> mat4x4<f32> {
    let rows = mat4x4(
        query_features(chunk, load_q(q_base.x, chunk)),
        query_features(chunk, load_q(q_base.y, chunk)),
        query_features(chunk, load_q(q_base.z, chunk)),
        query_features(chunk, load_q(q_base.w, chunk)),
    );
    return transpose(rows);
}

// Adds four features' states, weighted: rows of the state from `at` on, none past `last`.
fn add_features(w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>, at: u32, last: u32) {
    // A feature past the last weighs nothing.
    let s0 = min(at, last);
    let s1 = min(at + ROW, last);
    let s2 = min(at + 2u * ROW, last);
    let s3 = min(at + 3u * ROW, last);
    let header = HEADERS - 1u;
    sum += (w0 * states[s0 + header].x + w1 * states[s1 + header].x)
        + (w2 * states[s2 + header].x + w3 * states[s3 + header].x);
    for (var c = 0u; c < V_CHUNKS; c++) {
        var o4 = o_block[c];
        o4 = add_product(o4, w0, states[s0 + HEADERS + c]);
        o4 = add_product(o4, w1, states[s1 + HEADERS + c]);
        o4 = add_product(o4, w2, states[s2 + HEADERS + c]);
        o4 = add_product(o4, w3, states[s3 + HEADERS + c]);
        o_block[c] = o4;
    }
}

// Adds to four rows their weights times four dims of one value: column c is dim c.
fn add_product(o4: mat4x4<f32>, w: vec4<f32>, value: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(
        fma(w, vec4(value.x), o4[0]),
        fma(w, vec4(value.y), o4[1]),
        fma(w, vec4(value.z), o4[2]),
        fma(w, vec4(value.w), o4[3]),
    );
}
