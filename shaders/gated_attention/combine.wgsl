// Combines the partial results of several ranges of keys into rows of gated attention.
//
// One invocation owns four dims of one row; if SOFTMAX it walks the row's partials twice: for the maximum, then for the
// sums.
// Workgroup memory: none. Features: none.
// Source: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018, section 3.1.
const WORKGROUP: u32 = 64u;
const V_DIM: u32 = 1536u;
const SOFTMAX: bool = false;
const DIVISOR: u32 = 2u; // see divisor.wgsl

const V_CHUNKS: u32 = (V_DIM + 3u) / 4u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32, // batch * heads * len
    heads: u32, // of queries
    len: u32, // tokens
    splits: u32, // partials per row; 0 where there are no keys
    divisor: f32, // see divisor.wgsl
    u_start: u32, // starts and strides in elements
    u_batch: u32,
    u_head: u32,
    u_row: u32,
    o_start: u32,
    o_batch: u32,
    o_head: u32,
    o_row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(11) var<storage, read> partials: array<vec4<f32>>; // [rows, splits, 1 + v_dim / 4]

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    let index = workgroup * WORKGROUP + invocation;
    let row = index / V_CHUNKS;
    let c = index % V_CHUNKS;
    if (workgroup >= params.end_workgroup || row >= params.rows) {
        return;
    }

    // The row's maximum; ranges without a visible key carry the lowest score.
    let first = row * params.splits * (1u + V_CHUNKS);
    var visible = 0.0;
    var row_max = 0.0;
    if (params.splits > 0u) {
        visible = partials[first].z;
        row_max = partials[first].x;
    }
    if (SOFTMAX) {
        for (var s = 1u; s < params.splits; s++) {
            row_max = max(row_max, partials[first + s * (1u + V_CHUNKS)].x);
        }
    }

    // Every partial, brought to that maximum.
    var sum = 0.0;
    var o4 = vec4(0.0);
    for (var s = 0u; s < params.splits; s++) {
        let at = first + s * (1u + V_CHUNKS);
        var shrink = 1.0;
        if (SOFTMAX) {
            shrink = exp(partials[at].x - row_max);
        }
        sum += shrink * partials[at].y;
        o4 += shrink * partials[at + 1u + c];
    }

    let place = row_place(row);
    let base = params.o_start + place.batch * params.o_batch + place.head * params.o_head + place.i * params.o_row;
    // 0 where no key is visible, whatever the gate holds.
    let gated = o4 / row_divisor(visible, sum) * gate(place.batch, place.head, place.i, c);
    store_o(base, c, select(vec4(0.0), gated, visible > 0.0));
}
