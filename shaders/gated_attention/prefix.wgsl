// Sums the states of mixed chunks over the chunks, in place: causal, each place becomes the sum of the states before it, or, in the
// backward pass, of those behind it; else the first place becomes the sum of all.
//
// One invocation owns four numbers of the states of one (batch, kv head) and walks the chunks in order, or back.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;
const CAUSAL: bool = true;
const BACK: bool = false;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    size: u32, // of a state, in vec4
    chunks: u32,
    total: u32, // size * batch * kv_heads
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(7) var<storage, read_write> states: array<vec4<f32>>; // [batch * kv_heads, chunk, size]

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    let index = workgroup * WORKGROUP + invocation;
    if (workgroup >= params.end_workgroup || index >= params.total) {
        return;
    }
    let first = index / params.size * params.chunks * params.size + index % params.size;
    var sum = vec4(0.0);
    for (var chunk = 0u; chunk < params.chunks; chunk++) {
        let at = first + select(chunk, params.chunks - 1u - chunk, BACK) * params.size;
        let state = states[at];
        if (CAUSAL) {
            states[at] = sum;
        }
        sum += state;
    }
    if (!CAUSAL) {
        states[first] = sum;
    }
}
