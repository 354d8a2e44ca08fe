// Adds up what groups of rows have left of the gradient of a map.
//
// One workgroup owns four dims of a row of the map: an invocation every WORKGROUP-th group, then halves of the workgroup add each
// other's.
// Workgroup memory: 16 * WORKGROUP bytes. Features: none.
// Source: Hua et al., "Transformer Quality in Linear Time", 2022, section 3.2.
const WORKGROUP: u32 = 64u;
const KEY_DIM: u32 = 128u;

const KEY_CHUNKS: u32 = (KEY_DIM + 3u) / 4u;
const RESULT_DIM: u32 = KEY_DIM;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    sums_first: u32, // where the map's sums start
    terms: u32, // groups of a row: of one head, or of all
    gradient_start: u32, // start and stride in elements
    gradient_head: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(7) var<storage, read> map_sums: array<vec4<f32>>; // [row, terms, key_dim / 4]

var<workgroup> shared_sums: array<vec4<f32>, WORKGROUP>;

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
    let row = workgroup / KEY_CHUNKS;
    let c = workgroup % KEY_CHUNKS;
    var sum = vec4(0.0);
    for (var term = invocation; term < params.terms; term += WORKGROUP) {
        sum += map_sums[params.sums_first + (row * params.terms + term) * KEY_CHUNKS + c];
    }
    shared_sums[invocation] = sum;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (invocation < half) {
            sum += shared_sums[invocation + half];
            shared_sums[invocation] = sum;
        }
    }
    if (invocation == 0u) {
        store_gradient(params.gradient_start + row * params.gradient_head, c, sum);
    }
}
