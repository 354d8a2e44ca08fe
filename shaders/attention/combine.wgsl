// Combines the partial results of several ranges of keys into rows of softmax attention.
//
// PARTS invocations share four dims of one row: each walks every PARTS-th of the row's partials, and the first puts together
// what they found.
// Workgroup memory: 32 * WORKGROUP bytes if PARTS > 1. Features: none.
// Source: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018, section 3.1.
const WORKGROUP: u32 = 64u;
const PARTS: u32 = 1u;
const V_DIM: u32 = 64u;
const ENTROPY: bool = false;
alias Elem = vec4<f32>; // f32 where a row of o starts or ends off a multiple of four

const V_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const OWNERS: u32 = WORKGROUP / PARTS;
const_assert WORKGROUP % PARTS == 0u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32, // batch * heads * len
    heads: u32, // of queries
    len: u32, // tokens
    splits: u32, // partials per row; 0 where there are no keys
    o_start: u32, // starts and strides in elements
    o_batch: u32,
    o_head: u32,
    o_row: u32,
    lse_start: u32,
    lse_batch: u32,
    lse_head: u32,
    lse_row: u32,
    entropy_start: u32,
    entropy_batch: u32,
    entropy_head: u32,
    entropy_row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(11) var<storage, read> partials: array<vec4<f32>>; // [rows, splits, 1 + v_dim / 4]

// Of partials: in units of exp(row_max).
struct Combined {
    row_max: f32,
    sum: f32,
    weighted: f32,
    o4: vec4<f32>,
}

var<workgroup> found: array<Combined, WORKGROUP>;

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
    let index = workgroup * OWNERS + invocation % OWNERS;
    let row = min(index / V_CHUNKS, params.rows - 1u); // past the last, it is read and not written
    let c = index % V_CHUNKS;
    let part = invocation / OWNERS;

    // The first partial of each invocation is there, for PARTS is at most their number; none is where there are no keys.
    let first = row * params.splits * (1u + V_CHUNKS);
    var own: Combined;
    if (params.splits > 0u) {
        own = partial(first + part * (1u + V_CHUNKS), c);
    }
    for (var s = part + PARTS; s < params.splits; s += PARTS) {
        own = both(own, partial(first + s * (1u + V_CHUNKS), c));
    }
    if (PARTS > 1u) {
        found[invocation] = own;
        workgroupBarrier();
        for (var other = 1u; other < PARTS; other++) {
            own = both(own, found[other * OWNERS + invocation % OWNERS]);
        }
    }
    if (part > 0u || index / V_CHUNKS >= params.rows) {
        return;
    }

    let place = row_place(row);
    let base = params.o_start + place.batch * params.o_batch + place.head * params.o_head + place.i * params.o_row;
    store_o(base, c, own.o4 / select(own.sum, 1.0, own.sum == 0.0));
    if (c == 0u) {
        store_statistics(place.batch, place.head, place.i, own.row_max, own.sum, own.weighted);
    }
}

fn partial(at: u32, c: u32) -> Combined {
    let statistics = partials[at];
    return Combined(statistics.x, statistics.y, statistics.z, partials[at + 1u + c]);
}

// Ranges without a visible key carry the lowest score.
fn both(a: Combined, b: Combined) -> Combined {
    let row_max = max(a.row_max, b.row_max);
    let step_down = vec2(a.row_max, b.row_max) - row_max;
    let shrink = exp(step_down);
    let sums = shrink * vec2(a.sum, b.sum);
    let weighted = dot(shrink, vec2(a.weighted, b.weighted)) + dot(sums, step_down);
    return Combined(row_max, sums.x + sums.y, weighted, shrink.x * a.o4 + shrink.y * b.o4);
}
