// What the weights of each query have in common, for the backward pass of weights that add up to one: the scale of its scores, the
// largest of them, one over the sum of weights, and delta = dout . o, which all gradients of weights are relative to.
//
// LANES invocations own a row: they walk its dims, and each adds up all ranges of keys.
// Workgroup memory: 4 * WORKGROUP bytes. Features: none.
// Source: Dao, "FlashAttention-2", 2023, algorithm 2; Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018.
const WORKGROUP: u32 = 64u;
const LANES: u32 = 16u;
const V_DIM: u32 = 1536u;
const SOFTMAX: bool = true;
const LOG_N: bool = false; // the scale grows with log n, n being the row's number of visible keys
const DIVISOR: u32 = 4u; // see divisor.wgsl

const VALUE_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const LOG2_E: f32 = 1.4426950408889634;
const_assert WORKGROUP % LANES == 0u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32, // batch * heads * len
    heads: u32, // of queries
    len: u32, // tokens
    splits: u32, // partials per row; 0 where there are no keys
    scale: f32, // or its factor, if LOG_N: scale * log(max(n, scale_floor))
    scale_floor: u32,
    divisor: f32, // see divisor.wgsl
    dout_start: u32, // starts and strides in elements
    dout_batch: u32,
    dout_head: u32,
    dout_row: u32,
    o_start: u32,
    o_batch: u32,
    o_head: u32,
    o_row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(11) var<storage, read_write> partials: array<vec4<f32>>; // [rows, splits, 2]: largest score, sum, visible, 0; unused
@group(0) @binding(12) var<storage, read_write> row_terms: array<vec4<f32>>; // [rows]

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
    let own = workgroup * (WORKGROUP / LANES) + invocation / LANES;
    let row = min(own, params.rows - 1u);
    let place = row_place(row);
    let lane = invocation % LANES;

    // delta: every LANES-th chunk, then what the lanes have of it.
    let dout_base = params.dout_start + place.batch * params.dout_batch + place.head * params.dout_head + place.i * params.dout_row;
    let o_base = params.o_start + place.batch * params.o_batch + place.head * params.o_head + place.i * params.o_row;
    var delta = 0.0;
    if (DELTA) {
        for (var c = lane; c < VALUE_CHUNKS; c += LANES) {
            delta += dot(load_dout(dout_base, c), load_saved_o(o_base, c));
        }
        delta = sum_of_lanes(delta, invocation);
    }

    // Ranges of keys, brought to one largest score; ranges without a visible key carry the lowest.
    var visible = 0.0;
    var largest = 0.0;
    if (params.splits > 0u) {
        visible = partials[2u * row * params.splits].z;
        largest = partials[2u * row * params.splits].x;
    }
    if (SOFTMAX) {
        for (var s = 1u; s < params.splits; s++) {
            largest = max(largest, partials[2u * (row * params.splits + s)].x);
        }
    }
    var sum = 0.0;
    for (var s = 0u; s < params.splits; s++) {
        let part = partials[2u * (row * params.splits + s)];
        sum += select(part.y, exp(part.x - largest) * part.y, SOFTMAX);
    }
    var scale = params.scale;
    if (LOG_N) {
        scale *= log(max(visible, f32(params.scale_floor)));
    }
    // A row that sees no key meets none.
    let terms = vec4(scale * LOG2_E, largest * LOG2_E, 1.0 / row_divisor(visible, sum), delta);
    if (lane == 0u && own < params.rows) {
        row_terms[row] = select(vec4(0.0), terms, visible > 0.0);
    }
}
