// Softmax of each row of scores, in place: the second of three dispatches.
//
// One workgroup owns a row, one invocation every WORKGROUP-th vec4 of it. Three walks: for the largest score, for the sum of
// the exponentials, and to write the weights; a row stays in a cache from the first to the last. Barriers: two a row.
// Workgroup memory: 8 * WORKGROUP bytes. Features: none.
override WORKGROUP: u32 = 64u; // fewer on a CPU

struct Params {
    chunks: u32, // vec4s of a row
    scale: f32, // of the scores, times log2(e)
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> scores: array<vec4<f32>>; // [rows, chunks]

var<workgroup> maxima: array<f32, WORKGROUP>; // of an invocation's scores
var<workgroup> sums: array<f32, WORKGROUP>; // of their exponentials

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let first = (id.y * count.x + id.x) * params.chunks;

    var largest = scores[first + min(invocation, params.chunks - 1u)];
    for (var c = invocation; c < params.chunks; c += WORKGROUP) {
        largest = max(largest, scores[first + c]);
    }
    maxima[invocation] = max(max(largest.x, largest.y), max(largest.z, largest.w));
    workgroupBarrier();
    var row_max = maxima[0];
    for (var i = 1u; i < WORKGROUP; i++) {
        row_max = max(row_max, maxima[i]);
    }

    let offset = vec4(-params.scale * row_max);
    var sum = vec4(0.0);
    for (var c = invocation; c < params.chunks; c += WORKGROUP) {
        sum += exp2(fma(scores[first + c], vec4(params.scale), offset));
    }
    sums[invocation] = dot(sum, vec4(1.0));
    workgroupBarrier();
    var row_sum = 0.0;
    for (var i = 0u; i < WORKGROUP; i++) {
        row_sum += sums[i];
    }

    let share = 1.0 / row_sum;
    for (var c = invocation; c < params.chunks; c += WORKGROUP) {
        scores[first + c] = share * exp2(fma(scores[first + c], vec4(params.scale), offset));
    }
}
