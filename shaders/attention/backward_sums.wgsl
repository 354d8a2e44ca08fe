// Sums over the sequences, heads and rows that share a number: of the gradients of scales, in an order that never changes.
//
// A workgroup owns a sum, an invocation every WORKGROUP-th of its terms; then halves of the workgroup add each other's.
// Workgroup memory: 4 * WORKGROUP bytes. Features: none.
// Source: as softmax attention's gradients.
const WORKGROUP: u32 = 256u;
const LANES: u32 = WORKGROUP; // all share a sum
const SCALED: bool = false; // terms are times what stands in the place of their rows' scales

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    heads: u32, // of the terms
    len: u32, // rows of a head
    own_heads: u32, // of the sums: 1, or as many
    own_rows: u32, // likewise
    count: u32, // terms of a sum
    sum_heads: u32, // heads that it takes
    sum_rows: u32, // and rows
    sums_start: u32, // start and strides in elements
    sums_batch: u32,
    sums_head: u32,
    sums_row: u32,
    sums_stride: u32, // of heads alone
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(13) var<storage, read> facts: array<vec4<u32>>; // [batch, heads, len]: lse, delta, scale, and another word
@group(0) @binding(20) var<storage, read> slopes: array<f32>; // [batch, heads, len]
@group(0) @binding(21) var<storage, read_write> sums: array<f32>; // [batch or 1, heads or 1, len or 1], or [heads]

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
    let row = workgroup % params.own_rows;
    let head = workgroup / params.own_rows % params.own_heads;
    let batch = workgroup / params.own_rows / params.own_heads;
    var sum = 0.0;
    for (var term = invocation; term < params.count; term += WORKGROUP) {
        let i = row + term % params.sum_rows;
        let h = head + term / params.sum_rows % params.sum_heads;
        let b = batch + term / params.sum_rows / params.sum_heads;
        let at = (b * params.heads + h) * params.len + i;
        var slope = slopes[at];
        if (SCALED) {
            slope *= bitcast<f32>(facts[at].z);
        }
        sum += slope;
    }
    sum = sum_of_lanes(sum, invocation);
    if (invocation == 0u) {
        let at = batch * params.sums_batch + head * (params.sums_head + params.sums_stride) + row * params.sums_row;
        sums[params.sums_start + at] = sum;
    }
}
