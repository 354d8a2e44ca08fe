// What the pairs of a row have in common for the gradients of attention: its lse; delta = dout . o - dlse + dentropy * entropy; its scale;
// and dentropy. ds = p (dp - delta - dentropy log p) is all that is left for the kernels that walk pairs.
//
// LANES invocations share a row, and add up its dims between them.
// Workgroup memory: 4 * WORKGROUP bytes. Features: none.
// Source: Dao, "FlashAttention-2", 2023, algorithm 2.
const WORKGROUP: u32 = 64u;
const LANES: u32 = 8u;
const V_DIM: u32 = 64u;

const X_DIM: u32 = V_DIM; // x is o
const V_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const ROWS: u32 = WORKGROUP / LANES;
const_assert WORKGROUP % LANES == 0u;

const MINUS_INFINITY: u32 = 0xff800000u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32, // batch * heads * len
    heads: u32, // of queries
    len: u32, // tokens
    scale: f32, // where all rows have the same; else written by backward_scales.wgsl
    x_start: u32, // of o; starts and strides in elements
    x_batch: u32,
    x_head: u32,
    x_row: u32,
    lse_start: u32,
    lse_batch: u32,
    lse_head: u32,
    lse_row: u32,
    dout_start: u32,
    dout_batch: u32,
    dout_head: u32,
    dout_row: u32,
    dlse_start: u32,
    dlse_batch: u32,
    dlse_head: u32,
    dlse_row: u32,
    entropy_start: u32,
    entropy_batch: u32,
    entropy_head: u32,
    entropy_row: u32,
    dentropy_start: u32,
    dentropy_batch: u32,
    dentropy_head: u32,
    dentropy_row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(5) var<storage, read> lse: array<u32>; // [batch, q_heads, q_len], f32
@group(0) @binding(13) var<storage, read_write> facts: array<vec4<u32>>; // [rows]: lse, delta, scale, dentropy (see dentropy_of), as bits of f32

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
    let place = row_place(row);
    let x_base = params.x_start + place.batch * params.x_batch + place.head * params.x_head + place.i * params.x_row;
    let dout_at = place.batch * params.dout_batch + place.head * params.dout_head + place.i * params.dout_row;
    var sum = 0.0;
    var size = 0.0;
    for (var c = lane; c < V_CHUNKS; c += LANES) {
        let dout = load_dout(params.dout_start + dout_at, c);
        let product = load_x(x_base, c) * dout;
        sum += (product.x + product.y) + (product.z + product.w);
        size += (abs(dout.x) + abs(dout.y)) + (abs(dout.z) + abs(dout.w));
    }
    sum = sum_of_lanes(sum, invocation);
    if (UNITS) {
        workgroupBarrier();
        size = sum_of_lanes(size, invocation);
    }
    if (lane == 0u && own == row) {
        let bits = lse[params.lse_start + place.batch * params.lse_batch + place.head * params.lse_head + place.i * params.lse_row];
        let dh = dentropy_of(bitcast<u32>(load_dentropy(place)));
        let delta = sum - load_dlse(place) + dh * load_entropy(place);
        let own_lse = select(bits, bitcast<u32>(NO_KEY), bits == MINUS_INFINITY);
        facts[row] = vec4(own_lse, bitcast<u32>(delta), bitcast<u32>(params.scale), with_unit(dh, size));
    }
}
