// One token of causal linear attention, its state updated in place: S += psi(k) vT, z += psi(k), then
// o = phi(q)T S / (phi(q).z + eps) for every query head of the group.
//
// One workgroup owns one (batch, kv head). One invocation owns every WORKGROUP-th feature of z, and every WORKGROUP-th
// value dim of S and o, or pair of them.
// Workgroup memory: a weight per feature, another where the state is stored in 16 bits, and for an unbounded map a scale: 4 to
// 12 * FEATURES bytes, and 4 * WORKGROUP to reduce in. Features: none.
// Source: Katharopoulos et al., "Transformers are RNNs", 2020, eqs. 18 to 20.
const WORKGROUP: u32 = 64u;
const HEAD_DIM: u32 = 64u; // width of q and k as bound
const V_DIM: u32 = 64u;
const FEATURES: u32 = 64u;
const NORMALIZED: bool = true;
const PER_HEAD: bool = false; // one running maximum stands for the head
const OWN: u32 = 1u; // neighbouring dims of an invocation: 2 where they are written to one word
const_assert HEAD_DIM >= 1u && V_DIM >= 1u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    kv_heads: u32,
    group: u32, // query heads per kv head
    input_scale: f32, // of the second-order Taylor map
    eps: f32,
    log_eps: f32,
    q_start: u32, // starts and strides in elements
    q_batch: u32,
    q_head: u32,
    k_start: u32,
    k_batch: u32,
    k_head: u32,
    v_start: u32,
    v_batch: u32,
    v_head: u32,
    o_start: u32,
    o_batch: u32,
    o_head: u32,
    s_start: u32,
    s_batch: u32,
    s_head: u32,
    s_row: u32,
    z_start: u32,
    z_batch: u32,
    z_head: u32,
    max_start: u32,
    max_batch: u32,
    max_head: u32,
    max_feature: u32, // 0 where one maximum stands for the head
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<f32>; // [batch, q_heads, 1, head_dim]
@group(0) @binding(2) var<storage, read> k: array<f32>; // [batch, kv_heads, 1, head_dim]
@group(0) @binding(3) var<storage, read> v: array<f32>; // [batch, kv_heads, 1, v_dim]
@group(0) @binding(4) var<storage, read_write> o: array<f32>; // [batch, q_heads, 1, v_dim]
@group(0) @binding(5) var<storage, read_write> state_s: array<f32>; // [batch, kv_heads, FEATURES, v_dim]
@group(0) @binding(6) var<storage, read_write> state_z: array<f32>; // [batch, kv_heads, FEATURES]

var<workgroup> weights: array<f32, FEATURES>; // of the key, then of a query
var<workgroup> shared_numbers: array<f32, WORKGROUP>;

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
    let batch = workgroup / params.kv_heads;
    let head = workgroup % params.kv_heads;
    let s_base = params.s_start + batch * params.s_batch + head * params.s_head;
    let z_base = params.z_start + batch * params.z_batch + head * params.z_head;
    let max_base = params.max_start + batch * params.max_batch + head * params.max_head;

    // The key: z and maxima, then S.
    take_key(params.k_start + batch * params.k_batch + head * params.k_head, z_base, max_base, invocation);
    let v_base = params.v_start + batch * params.v_batch + head * params.v_head;
    before_queries(s_base, v_base, invocation);

    // The queries.
    for (var g = 0u; g < params.group; g++) {
        let q_head = head * params.group + g;
        workgroupBarrier();
        take_query(params.q_start + batch * params.q_batch + q_head * params.q_head, z_base, max_base, invocation);
        let o_base = params.o_start + batch * params.o_batch + q_head * params.o_head;
        for (var first = OWN * invocation; first < V_DIM; first += OWN * WORKGROUP) {
            for (var i = 0u; i < OWN; i++) { // unroll
                let c = first + i;
                if (c < V_DIM) {
                    let value = key_value(v_base + c);
                    var sum = 0.0;
                    for (var f = 0u; f < FEATURES; f++) {
                        sum += weights[f] * s_now(f, s_base + f * params.s_row + c, value);
                    }
                    o[o_base + c] = finish(sum);
                }
            }
        }
    }
    after_queries(s_base, z_base, v_base, invocation);
}

// S += psi(k) vT.
fn add_key(s_base: u32, v_base: u32, invocation: u32) {
    for (var first = OWN * invocation; first < V_DIM; first += OWN * WORKGROUP) {
        for (var i = 0u; i < OWN; i++) { // unroll
            let c = first + i;
            if (c < V_DIM) {
                let value = v[v_base + c];
                for (var f = 0u; f < FEATURES; f++) {
                    let at = s_base + f * params.s_row + c;
                    state_s[at] = shrink(f) * state_s[at] + key_weight(f) * value;
                }
            }
        }
    }
}

// The sum, or the maximum, of one number per invocation; every invocation gets it.
fn reduce_sum(x: f32, invocation: u32) -> f32 {
    workgroupBarrier();
    shared_numbers[invocation] = x;
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < WORKGROUP; i++) {
        sum += shared_numbers[i];
    }
    return sum;
}

fn reduce_max(x: f32, invocation: u32) -> f32 {
    workgroupBarrier();
    shared_numbers[invocation] = x;
    workgroupBarrier();
    var largest = shared_numbers[0];
    for (var i = 1u; i < WORKGROUP; i++) {
        largest = max(largest, shared_numbers[i]);
    }
    return largest;
}
