// Merges partial results of softmax attention, each of its own keys, into the result of all keys.
//
// LANES invocations own a row. Each walks the parts for their largest lse and for the sum of their weights, and then once for
// every four value dims of its own. Where ACCUMULATE, what the outputs hold is one part more, before the others; what is
// in lse and entropy is replaced behind a barrier, for all invocations of the row have read it before.
// Workgroup memory: none. Features: none.
// Source: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018, section 3.1.
const WORKGROUP: u32 = 64u;
const LANES: u32 = 16u; // a divisor of WORKGROUP
const V_DIM: u32 = 64u;
const ACCUMULATE: bool = false;
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const V_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const ROWS: u32 = WORKGROUP / LANES;
const LOWEST: f32 = -0x1.fffffep+127; // no lse is below the lowest float
const MINUS_INFINITY: u32 = 0xff800000u; // the lse of a part that sees no key

const_assert WORKGROUP % LANES == 0u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    parts: u32,
    rows: u32, // batch * heads * len
    heads: u32,
    len: u32, // tokens
    o_parts_start: u32, // starts and strides in elements
    o_parts_part: u32,
    o_parts_batch: u32,
    o_parts_head: u32,
    o_parts_row: u32,
    lse_parts_start: u32,
    lse_parts_part: u32,
    lse_parts_batch: u32,
    lse_parts_head: u32,
    lse_parts_row: u32,
    entropy_parts_start: u32,
    entropy_parts_part: u32,
    entropy_parts_batch: u32,
    entropy_parts_head: u32,
    entropy_parts_row: u32,
    o_start: u32,
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
@group(0) @binding(1) var<storage, read> o_parts: array<Elem>; // [parts, batch, heads, len, v_dim]
@group(0) @binding(2) var<storage, read> lse_parts: array<u32>; // [parts, batch, heads, len], f32

// What the parts of a row have in common.
var<private> seen: u32; // how many see a key
var<private> last: u32; // the lse of the last that does, as bits
var<private> largest: f32; // lse
var<private> sum: f32; // of the weights exp(lse - largest)
var<private> mixed: f32; // weights times entropy - (lse - largest); the entropy itself if one part sees a key
var<private> o4: vec4<f32>;

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
    let index = workgroup * ROWS + invocation / LANES;
    let row = min(index, params.rows - 1u); // past the last, a row is read and not written
    let lane = invocation % LANES;
    let place = row_place(row);
    let o_at = params.o_start + place.batch * params.o_batch + place.head * params.o_head + place.i * params.o_row;
    let first_o = params.o_parts_start + place.batch * params.o_parts_batch + place.head * params.o_parts_head
        + place.i * params.o_parts_row;
    let first_lse = params.lse_parts_start + place.batch * params.lse_parts_batch
        + place.head * params.lse_parts_head + place.i * params.lse_parts_row;

    // The largest lse.
    var own = MINUS_INFINITY;
    if (ACCUMULATE) {
        own = load_lse(place.batch, place.head, place.i);
    }
    largest = LOWEST;
    see(own);
    for (var p = 0u; p < params.parts; p++) {
        see(lse_parts[first_lse + p * params.lse_parts_part]);
    }

    // The sum of the weights.
    if (ACCUMULATE && own != MINUS_INFINITY) {
        add_weight(own, load_entropy(place.batch, place.head, place.i));
    }
    for (var p = 0u; p < params.parts; p++) {
        let bits = lse_parts[first_lse + p * params.lse_parts_part];
        if (bits != MINUS_INFINITY) {
            add_weight(bits, part_entropy(p, place.batch, place.head, place.i));
        }
    }

    // The weighted sum of each chunk; what sees no key is not read.
    for (var c = lane; c < V_CHUNKS; c += LANES) {
        o4 = vec4(0.0);
        if (ACCUMULATE && own != MINUS_INFINITY) {
            add_chunk(own, load_o(o_at, c));
        }
        for (var p = 0u; p < params.parts; p++) {
            let bits = lse_parts[first_lse + p * params.lse_parts_part];
            if (bits != MINUS_INFINITY) {
                add_chunk(bits, load_part(first_o + p * params.o_parts_part, c));
            }
        }
        if (index < params.rows) {
            if (seen > 1u) {
                store_o(o_at, c, o4 / sum);
            } else {
                store_o(o_at, c, o4);
            }
        }
    }

    // The statistics.
    storageBarrier();
    workgroupBarrier();
    if (index < params.rows && lane == 0u) {
        if (seen > 1u) {
            store_lse(place.batch, place.head, place.i, bitcast<u32>(largest + log(sum)));
            let nats = mixed / sum + log(sum);
            store_entropy(place.batch, place.head, place.i, nats - min(nats, 0.0)); // NaN stays, which max might drop
        } else {
            store_lse(place.batch, place.head, place.i, select(MINUS_INFINITY, last, seen == 1u));
            store_entropy(place.batch, place.head, place.i, mixed);
        }
    }
}

fn see(bits: u32) {
    if (bits != MINUS_INFINITY) {
        seen++;
        last = bits;
        largest = max(largest, bitcast<f32>(bits));
    }
}

fn add_weight(bits: u32, entropy: f32) {
    // A part alone stays as it is, to the bit.
    if (seen == 1u) {
        mixed = entropy;
        return;
    }
    let step_down = bitcast<f32>(bits) - largest;
    let weight = exp(step_down);
    sum += weight;
    mixed += weight * (entropy - step_down);
}

fn add_chunk(bits: u32, x: vec4<f32>) {
    if (seen == 1u) {
        o4 = x;
    } else {
        o4 += exp(bitcast<f32>(bits) - largest) * x;
    }
}
