// Efficient Attention: from G, the sums of softmax(q) do over all queries, to the gradients of S and z, to which those of the final
// state are added: dS = G / z, dz = -(G.S) / z^2. Relative to the exponential of minus the keys' maximum.
//
// One invocation owns one feature of one head.
// Workgroup memory: none. Features: none.
// Source: the derivatives of Shen et al., "Efficient Attention", 2018, section 3.2.
const WORKGROUP: u32 = 64u;
const V_DIM: u32 = 64u;
const FEATURES: u32 = 64u;
const HEADERS: u32 = 2u;

const V_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const ROW: u32 = HEADERS + V_CHUNKS; // vec4s per feature of a state

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32, // heads of the round * FEATURES
    slots: u32, // states per head: of gradients
    carry: u32, // slot of G
    comes_in: u32, // slot of the gradients of the final state, if there are any
    adds: u32, // 1: there are
    key_slots: u32, // states per head: of keys
    key_carry: u32, // slot of S and z
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(11) var<storage, read_write> states: array<vec4<f32>>; // [heads, slots, FEATURES, ROW]: of gradients
@group(0) @binding(13) var<storage, read_write> key_states: array<vec4<f32>>; // [heads, key_slots, FEATURES, ROW]

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    let index = workgroup * WORKGROUP + invocation;
    if (workgroup >= params.end_workgroup || index >= params.rows) {
        return;
    }
    let head = index / FEATURES;
    let f = index % FEATURES;
    let at = ((head * params.slots + params.carry) * FEATURES + f) * ROW;
    let other = ((head * params.slots + params.comes_in) * FEATURES + f) * ROW;
    let key = ((head * params.key_slots + params.key_carry) * FEATURES + f) * ROW;
    let sums = key_states[key + HEADERS - 1u]; // z, and the maximum

    // What was summed is relative to its own maximum; of no keys there is nothing.
    let z = select(sums.x, 1.0, sums.x == 0.0);
    let scale = select(exp(states[at + HEADERS - 1u].y) / z, 0.0, sums.x == 0.0);
    var product = 0.0;
    for (var c = 0u; c < V_CHUNKS; c++) {
        var own = scale * states[at + HEADERS + c];
        product += dot(own, key_states[key + HEADERS + c]);
        if (params.adds == 1u) {
            own += states[other + HEADERS + c];
        }
        states[at + HEADERS + c] = own;
    }
    var dz = -product / z;
    if (params.adds == 1u) {
        dz += states[other + HEADERS - 1u].x;
    }
    states[at + HEADERS - 1u] = vec4(dz, -sums.y, 0.0, 0.0);
}
