// Softmax or Taylor softmax of rows, or its gradient: the statistics of a row, and what follows from them column by column.
//
// LANES invocations own a row, or one of its splits, and take QUADS fours of columns each at a time. Where KEPT, those are the whole
// row and stay in registers. Else the row is read twice: for its statistics, which are kept as they go relative to the largest
// score so far; and for what is written. Where a row is split, the first is one dispatch (REDUCE), whose partial statistics every
// workgroup of the second (APPLY) combines. What is written column by column is in forward.wgsl or backward.wgsl.
// Workgroup memory: 16 * WORKGROUP bytes. Features: none.
// Source: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018, section 3.1.
const WORKGROUP: u32 = 256u;
const LANES: u32 = 256u; // a power of two
const QUADS: u32 = 4u;
const KEPT: bool = false;
const REDUCE: bool = true;
const APPLY: bool = true;
const COUNT: bool = false; // whether the scale takes the number of columns that the mask leaves
const TAYLOR: bool = false; // whether a weight is 1 + s + s*s/2, and not exp(s)
const LOG: bool = false; // whether p is log p
const EVEN: bool = false; // whether what comes in counts every column alike, as a gradient of log p does
const ENTROPY: bool = false; // whether anything takes the entropy
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const_assert !(KEPT && !(REDUCE && APPLY));

// Of scores s = scale * x, in units of exp(largest); where TAYLOR, which no score is subtracted from, largest is 0.
struct Statistics {
    largest: f32,
    sum: f32, // of the weights of s - largest; 0 where no column is seen
    weighted: f32, // of weights times their logarithms
    incoming: f32, // of weights times dp; where EVEN, the sum of dp in units of 1
}

const NOTHING: Statistics = Statistics(select(LOWEST, 0.0, TAYLOR), 0.0, 0.0, 0.0);

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    if (workgroup >= params.end_workgroup) {
        return;
    }
    place(workgroup, local);

    // The scale.
    if (REDUCE) {
        find_scale();
    } else {
        load_scale();
    }

    // The statistics of this split, and of the row.
    var own = NOTHING;
    if (KEPT) {
        load(0u, true);
        own = take_in(own);
    } else if (REDUCE) {
        for (var first = begin; first < end; first += BLOCK) {
            load(first, true);
            own = take_in(own);
        }
    } else {
        for (var s = lane; s < params.splits; s += LANES) {
            own = both(own, load_partial(s));
        }
    }
    own = over_lanes(own);
    if (!APPLY) {
        if (lane == 0u) {
            store_partial(own);
        }
        return;
    }

    // What follows from them.
    start_row(own);
    if (KEPT) {
        write();
    } else {
        for (var first = begin; first < end; first += BLOCK) {
            load(first, true);
            write();
        }
    }
    finish_row();
}

// Scores of a quad. The comparison is false for NaN, which stays.
fn scores(quad: Quad) -> vec4<f32> {
    let s = scale * quad.x;
    if (TAYLOR) {
        return s;
    }
    return select(s, vec4(LOWEST), (s < vec4(LOWEST)) | !quad.seen);
}

// The weights of scores, less the largest.
fn weights_of(below: vec4<f32>) -> vec4<f32> {
    if (TAYLOR) {
        return 1.0 + below * (1.0 + 0.5 * below);
    }
    return exp(below);
}

// Their logarithms.
fn logs_of(below: vec4<f32>, weights: vec4<f32>) -> vec4<f32> {
    if (TAYLOR) {
        return log(weights);
    }
    return below;
}

// The derivatives of their logarithms.
fn growth_of(below: vec4<f32>, weights: vec4<f32>) -> vec4<f32> {
    if (TAYLOR) {
        return (1.0 + below) / weights;
    }
    return vec4(1.0);
}

// The statistics with what has been loaded.
fn take_in(before: Statistics) -> Statistics {
    var found = before;
    if (!TAYLOR) {
        var largest = vec4(before.largest);
        for (var i = 0u; i < QUADS; i++) { // unroll
            largest = max(largest, scores(quads[i]));
        }
        found = shrunk(before, max(max(largest.x, largest.y), max(largest.z, largest.w)));
    }
    for (var i = 0u; i < QUADS; i++) { // unroll
        let below = scores(quads[i]) - found.largest;
        let of_seen = weights_of(below);
        let weights = select(vec4(0.0), of_seen, quads[i].seen);
        found.sum += total(weights);
        if (ENTROPY) {
            found.weighted += total(weights * logs_of(below, of_seen));
        }
        found.incoming += total(select(weights, vec4(1.0), vec4(EVEN)) * quads[i].dp);
    }
    return found;
}

// The statistics in units of exp(largest), which is none below their own.
fn shrunk(from_own: Statistics, largest: f32) -> Statistics {
    if (TAYLOR) {
        return from_own;
    }
    let below = from_own.largest - largest;
    let shrink = exp(below);
    let sum = shrink * from_own.sum;
    let incoming = from_own.incoming * select(shrink, 1.0, EVEN);
    return Statistics(largest, sum, shrink * from_own.weighted + sum * below, incoming);
}

fn both(a: Statistics, b: Statistics) -> Statistics {
    let largest = max(a.largest, b.largest);
    let one = shrunk(a, largest);
    let other = shrunk(b, largest);
    return Statistics(largest, one.sum + other.sum, one.weighted + other.weighted, one.incoming + other.incoming);
}

fn packed(own: Statistics) -> vec4<f32> {
    return vec4(own.largest, own.sum, own.weighted, own.incoming);
}

fn unpacked(own: vec4<f32>) -> Statistics {
    return Statistics(own.x, own.y, own.z, own.w);
}

// The statistics of all invocations of a row, in an order that never changes.
fn over_lanes(from_own: Statistics) -> Statistics {
    if (LANES == 1u) {
        return from_own;
    }
    var own = from_own;
    shared_numbers[invocation] = packed(own);
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            own = both(own, unpacked(shared_numbers[invocation + half]));
            shared_numbers[invocation] = packed(own);
        }
    }
    workgroupBarrier();
    own = unpacked(shared_numbers[invocation - lane]);
    workgroupBarrier();
    return own;
}
