// Linear attention token by token, its state in registers: S += psi(k) vT, z += psi(k), then
// o = phi(q)T S / (phi(q).z + eps). Causal it does both for each token; else one pass adds all keys, without READ, and another
// reads for the queries, without ADD.
//
// One workgroup, which is one subgroup, owns a block of value dims of one (batch, query head), or kv head without READ, and
// walks the tokens in order, TOKENS a step.
// One invocation owns V_BLOCK vec4s of value dims of S and o. Of q, k and z it owns every WORKGROUP-th vec4 of features,
// maps them, and tells them to all. All loops over S are unrolled, so that it is registers, which the driver may spill.
// Workgroup memory: none. Features: subgroups.
// Source: Katharopoulos et al., "Transformers are RNNs", 2020, eqs. 18 to 20.
const WORKGROUP: u32 = 8u;
const HEAD_DIM: u32 = 64u;
const V_DIM: u32 = 64u;
const V_BLOCK: u32 = 2u;
const TOKENS: u32 = 2u;
const NORMALIZED: bool = true;
const ADD: bool = true; // the keys to the state
const READ: bool = true; // the state for the queries
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const V_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const SHARES: u32 = (HEAD_CHUNKS + WORKGROUP - 1u) / WORKGROUP;
const PIECE: u32 = 4u; // vec4s of features whose products are one piece of code
const PIECES: u32 = (HEAD_CHUNKS + PIECE - 1u) / PIECE;
const FEATURES: u32 = 4u * PIECE * PIECES; // that S has room for
const_assert HEAD_DIM >= 1u && V_DIM >= 1u;

@group(0) @binding(2) var<storage, read> k: array<Elem>; // [batch, kv_heads, len, head_dim]
@group(0) @binding(3) var<storage, read> v: array<Elem>; // [batch, kv_heads, len, v_dim]

alias Share = array<vec4<f32>, SHARES>; // an invocation's chunks lane, lane + WORKGROUP and so on of a row's features
alias Told = array<vec4<f32>, PIECE * PIECES>; // all chunks of a row's features

var<private> s: array<array<vec4<f32>, V_BLOCK>, FEATURES>;
var<private> z: Share;
var<private> lane: u32; // the invocation's index in the workgroup

// Where the head's rows start, and the workgroup's first chunk of value dims.
struct Place {
    q: u32,
    k: u32,
    v: u32,
    o: u32,
    first_v: u32,
}

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
    lane = invocation;
    let group_head = workgroup / params.value_blocks;
    let local_head = group_head / params.group;
    let batch = (params.first_head + local_head) / params.kv_heads;
    let kv_head = (params.first_head + local_head) % params.kv_heads;
    let head = kv_head * params.group + group_head % params.group;
    let place = Place(
        params.q_start + batch * params.q_batch + head * params.q_head,
        params.k_start + batch * params.k_batch + kv_head * params.k_head,
        params.v_start + batch * params.v_batch + kv_head * params.v_head,
        params.o_start + batch * params.o_batch + head * params.o_head,
        workgroup % params.value_blocks * WORKGROUP * V_BLOCK,
    );
    if (params.fresh == 0u) {
        load_states(2u * local_head + params.carry_in, place.first_v);
    }
    let end = select(min(params.end_token, kv_len_of(batch)), params.end_token, READ);
    for (var j = params.first_token; j < end; j += TOKENS) {
        step(j, end, place);
    }
    if (ADD && group_head % params.group == 0u) {
        store_states(2u * local_head + params.carry_out, place.first_v);
    }
}

// TOKENS tokens from j on. One past the end repeats the last, with a key that weighs nothing.
fn step(j: u32, end: u32, place: Place) {
    // Features, and z.
    var row: array<u32, TOKENS>;
    var q_told: array<Told, TOKENS>;
    var k_told: array<Told, TOKENS>;
    var divisor: array<f32, TOKENS>;
    for (var t = 0u; t < TOKENS; t++) { // unroll
        row[t] = min(j + t, end - 1u);
        var q_own: Share;
        var k_own: Share;
        var product = vec4(0.0);
        for (var b = 0u; b < SHARES; b++) { // unroll
            let c = min(b * WORKGROUP + lane, HEAD_CHUNKS - 1u);
            if (ADD) {
                let there = b * WORKGROUP + lane < HEAD_CHUNKS && j + t < end;
                k_own[b] = within(c, feature(load_k(place.k + row[t] * params.k_row, c)), 0.0);
                k_own[b] = select(vec4(0.0), k_own[b], there);
                z[b] += k_own[b];
            }
            if (READ) {
                q_own[b] = within(c, feature(load_q(place.q + row[t] * params.q_row, c)), 0.0);
                product = fma(q_own[b], z[b], product);
            }
        }
        if (ADD) {
            k_told[t] = tell(k_own);
        }
        if (READ) {
            q_told[t] = tell(q_own);
            divisor[t] = total((product.x + product.y) + (product.z + product.w)) + params.eps;
        }
    }

    // S and o.
    for (var c = 0u; c < V_BLOCK; c++) { // unroll
        let chunk = place.first_v + c * WORKGROUP;
        var value: array<vec4<f32>, TOKENS>;
        var o4: array<vec4<f32>, TOKENS>;
        for (var t = 0u; t < TOKENS; t++) { // unroll
            if (ADD) {
                value[t] = load_v(place.v + row[t] * params.v_row, min(chunk + lane, V_CHUNKS - 1u));
            }
        }
        for (var p = 0u; p < PIECES; p++) { // unroll
            // Always so, which the driver cannot know: it does not mix this piece's code with the next one's.
            if (4u * PIECE * p < params.features) {
                for (var e = 0u; e < 4u * PIECE; e++) { // unroll
                    const f = 4u * PIECE * p + e;
                    if (f / 4u < HEAD_CHUNKS) {
                        for (var t = 0u; t < TOKENS; t++) { // unroll
                            if (ADD) {
                                s[f][c] = fma(vec4(k_told[t][f / 4u][f % 4u]), value[t], s[f][c]);
                            }
                            if (READ) {
                                o4[t] = fma(vec4(q_told[t][f / 4u][f % 4u]), s[f][c], o4[t]);
                            }
                        }
                    }
                }
            }
        }
        for (var t = 0u; t < TOKENS; t++) { // unroll
            if (NORMALIZED) {
                o4[t] /= divisor[t];
            }
            if (READ && chunk + lane < V_CHUNKS) {
                store_o(place.o + row[t] * params.o_row, chunk + lane, o4[t]);
            }
        }
    }
}
