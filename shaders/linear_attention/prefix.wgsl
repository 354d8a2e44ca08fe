// Turns the chunks' own sums into what comes before each chunk, and carries the total on to the next round.
//
// One invocation owns one vec4 of one feature's state: its header (z and maximum) or four value dims; it walks the
// chunks in order. In full mode only the total is wanted.
// A feature's header is read by all invocations of its row, so what comes before a chunk goes to a second header
// where there are maxima, and the total goes to another slot than the one it is carried in.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;
const V_DIM: u32 = 64u;
const FEATURES: u32 = 64u;
const HEADERS: u32 = 1u; // 2 where a running maximum is carried
const CAUSAL: bool = true;
const REVERSE: bool = false; // from the last chunk to the first

const V_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const ROW: u32 = HEADERS + V_CHUNKS; // vec4s per feature of a state
const LOWEST: f32 = -1.0e38; // the maximum of no keys

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    vectors: u32, // heads * FEATURES * (1 + V_CHUNKS)
    slots: u32, // states per head in the workspace
    chunks: u32, // in this round
    carry_in: u32, // slot of what comes before the round
    carry_out: u32, // slot for the total
    fresh: u32, // 1: nothing comes before the round
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(11) var<storage, read_write> states: array<vec4<f32>>; // [heads, slots, FEATURES, ROW]

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    let index = workgroup * WORKGROUP + invocation;
    if (workgroup >= params.end_workgroup || index >= params.vectors) {
        return;
    }
    let c = index % (1u + V_CHUNKS);
    let f = (index / (1u + V_CHUNKS)) % FEATURES;
    let head = index / (1u + V_CHUNKS) / FEATURES;
    let row = (head * params.slots * FEATURES + f) * ROW;
    let slot = FEATURES * ROW;
    // Where a chunk's own sums lie, and what comes before it.
    let own = select(HEADERS + c - 1u, 0u, c == 0u);
    let before = HEADERS + c - 1u;

    var total = vec4(0.0);
    var maximum = LOWEST;
    if (params.fresh == 0u) {
        total = states[row + params.carry_in * slot + before];
        maximum = states[row + params.carry_in * slot + HEADERS - 1u].y;
    }
    for (var t = 0u; t < params.chunks; t++) {
        let at = row + select(t, params.chunks - 1u - t, REVERSE) * slot;
        let sums = states[at + own];
        var scale = vec2(1.0);
        var next = 0.0;
        if (HEADERS == 2u) {
            let chunk_maximum = states[at].y;
            next = max(maximum, chunk_maximum);
            scale = exp(vec2(maximum, chunk_maximum) - next);
        }
        if (CAUSAL) {
            states[at + before] = with_maximum(c, total, maximum);
        }
        total = scale.x * total + scale.y * sums;
        maximum = next;
    }
    states[row + params.carry_out * slot + before] = with_maximum(c, total, maximum);
}

fn with_maximum(c: u32, total: vec4<f32>, maximum: f32) -> vec4<f32> {
    return select(total, vec4(total.x, maximum, 0.0, 0.0), HEADERS == 2u && c == 0u);
}
