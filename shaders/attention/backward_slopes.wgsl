// The gradient of each row's scale, sum dx (q k), from what ranges of keys have left of dq before its scale: that is q . sum dx k.
//
// LANES invocations share a row, and add up its dims between them.
// Workgroup memory: 4 * WORKGROUP bytes. Features: none.
// Source: the derivative of the scores by their scale; Nakanishi, "Scalable-Softmax", 2025, has a scale that is learned.
const WORKGROUP: u32 = 64u;
const LANES: u32 = 8u;
const HEAD_DIM: u32 = 64u;

const X_DIM: u32 = HEAD_DIM; // x is q
const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const ROWS: u32 = WORKGROUP / LANES;
const_assert WORKGROUP % LANES == 0u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32, // whose partials there are, of batch * heads * len
    first_row: u32, // of them
    heads: u32, // of queries
    len: u32, // tokens
    splits: u32, // partials per row; 0 where there are no keys
    factor: f32, // of all rows
    x_start: u32, // of q; starts and strides in elements
    x_batch: u32,
    x_head: u32,
    x_row: u32,
    slopes_start: u32,
    slopes_batch: u32,
    slopes_head: u32,
    slopes_row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(11) var<storage, read_write> partials: array<vec4<f32>>; // [rows, splits, head_dim / 4]
@group(0) @binding(13) var<storage, read_write> facts: array<vec4<u32>>; // [rows]: lse, delta, scale, and another word
@group(0) @binding(20) var<storage, read_write> slopes: array<f32>; // [batch, q_heads, q_len]

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
    let own = workgroup * ROWS + invocation / LANES;
    let row = min(own, params.rows - 1u); // past the last, it is read and not written
    let lane = invocation % LANES;
    let place = row_place(params.first_row + row);
    let base = params.x_start + place.batch * params.x_batch + place.head * params.x_head + place.i * params.x_row;
    var sum = 0.0;
    for (var c = lane; c < HEAD_CHUNKS; c += LANES) {
        var along_keys = vec4(0.0);
        for (var split = 0u; split < params.splits; split++) {
            along_keys += partials[(row * params.splits + split) * HEAD_CHUNKS + c];
        }
        let product = load_x(base, c) * along_keys;
        sum += (product.x + product.y) + (product.z + product.w);
    }
    sum = sum_of_lanes(sum, invocation);
    if (lane == 0u && own == row) {
        let known = bitcast<vec4<f32>>(facts[params.first_row + row]);
        let is_empty = known.x == NO_KEY; // whatever its q is
        let at = place.batch * params.slopes_batch + place.head * params.slopes_head + place.i * params.slopes_row;
        slopes[params.slopes_start + at] = select(params.factor * sum, 0.0, is_empty);
    }
}
