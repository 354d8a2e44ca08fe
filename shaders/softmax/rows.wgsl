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
const ENTROPY: bool = false; // whether anything takes the entropy
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const ROWS: u32 = WORKGROUP / LANES;
const BLOCK: u32 = 4u * LANES * QUADS; // columns
const LOWEST: f32 = -1.0e38; // a score below this counts as this
const MINUS_INFINITY: u32 = 0xff800000u;
const_assert WORKGROUP % LANES == 0u && !(KEPT && !(REDUCE && APPLY));

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32,
    columns: u32,
    splits: u32, // of a row
    split_columns: u32, // a multiple of BLOCK
    scale: f32, // of all rows; what log n is multiplied with where COUNT
    scale_floor: u32, // least n
    scale_least: f32, // least log n
    minus_infinity: u32, // as bits: a literal that is one WGSL refuses
    x_start: u32, // starts and strides in elements
    x_rows: u32,
    mask_start: u32,
    mask_rows: u32,
    row_scale_start: u32,
    row_scale_stride: u32,
    p_start: u32,
    p_rows: u32,
    lse_start: u32,
    lse_stride: u32,
    entropy_start: u32,
    entropy_stride: u32,
    dp_start: u32,
    dp_rows: u32,
    dlse_start: u32,
    dlse_stride: u32,
    dentropy_start: u32,
    dentropy_stride: u32,
    dx_start: u32,
    dx_rows: u32,
    slopes_start: u32,
    slopes_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Elem>; // [rows, columns]

// Four columns of the row.
struct Quad {
    columns: vec4<u32>,
    seen: vec4<bool>,
    x: vec4<f32>,
    dp: vec4<f32>, // what comes in backward; 0 in forward
}

// Of scores s = scale * x, in units of exp(largest); where TAYLOR, which no score is subtracted from, largest is 0.
struct Statistics {
    largest: f32,
    sum: f32, // of the weights of s - largest; 0 where no column is seen
    weighted: f32, // of weights times their logarithms
    incoming: f32, // of weights times dp; where LOG, the sum of dp in units of 1
}

const NOTHING: Statistics = Statistics(select(LOWEST, 0.0, TAYLOR), 0.0, 0.0, 0.0);

var<workgroup> shared_numbers: array<vec4<f32>, WORKGROUP>;

var<private> invocation: u32;
var<private> lane: u32;
var<private> row: u32;
var<private> split: u32;
var<private> is_own: bool; // whether the row is there to be written
var<private> term: f32; // the scale without row_scale
var<private> scale: f32;
var<private> quads: array<Quad, QUADS>;

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
    invocation = local;
    lane = local % LANES;
    let index = workgroup * ROWS + local / LANES;
    let own_row = index / params.splits;
    is_own = own_row < params.rows;
    row = min(own_row, params.rows - 1u); // past the last, a row is read and not written
    split = index % params.splits;
    let begin = split * params.split_columns;
    let end = min(begin + params.split_columns, params.columns);

    // The scale.
    if (REDUCE) {
        term = params.scale;
        if (COUNT) {
            term *= max(log(f32(max(visible_columns(), params.scale_floor))), params.scale_least);
        }
        scale = term * row_scale_of(row);
    } else {
        load_scale();
    }

    // The statistics of this split, and of the row.
    var own = NOTHING;
    if (KEPT) {
        load(0u, end);
        own = take_in(own);
    } else if (REDUCE) {
        for (var first = begin; first < end; first += BLOCK) {
            load(first, end);
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
            load(first, end);
            write();
        }
    }
    finish_row(index);
}

fn load(first: u32, end: u32) {
    for (var i = 0u; i < QUADS; i++) { // unroll
        quads[i] = load_quad(columns_of(first + i * (4u * LANES)), end);
    }
}

fn load_quad(columns: vec4<u32>, end: u32) -> Quad {
    var quad: Quad;
    quad.columns = columns;
    // Past the last column the last is read again: without a branch, all loads are under way at once.
    let at = min(columns, vec4(params.columns - 1u));
    let found = load_x(at);
    // A column that is not seen takes part in nothing, whatever it holds.
    quad.seen = (columns < vec4(end)) & mask_at(at) & (bitcast<vec4<u32>>(found) != vec4(MINUS_INFINITY));
    quad.x = select(vec4(0.0), found, quad.seen);
    quad.dp = select(vec4(0.0), load_dp(at), quad.seen);
    return quad;
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
        found.incoming += total(select(weights, vec4(1.0), vec4(LOG)) * quads[i].dp);
    }
    return found;
}

fn total(numbers: vec4<f32>) -> f32 {
    return (numbers.x + numbers.y) + (numbers.z + numbers.w);
}

// The statistics in units of exp(largest), which is none below their own.
fn shrunk(from_own: Statistics, largest: f32) -> Statistics {
    if (TAYLOR) {
        return from_own;
    }
    let below = from_own.largest - largest;
    let shrink = exp(below);
    let sum = shrink * from_own.sum;
    let incoming = from_own.incoming * select(shrink, 1.0, LOG);
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

// The sum over all invocations of a row.
fn sum_over_lanes(from_own: f32) -> f32 {
    if (LANES == 1u) {
        return from_own;
    }
    var own = from_own;
    shared_numbers[invocation].x = own;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            own += shared_numbers[invocation + half].x;
            shared_numbers[invocation].x = own;
        }
    }
    workgroupBarrier();
    own = shared_numbers[invocation - lane].x;
    workgroupBarrier();
    return own;
}

// Columns of the row that the mask leaves. An f32 counts to 2^24, which no row is wider than that is not split: a wider one's number
// passes in two halves of 16 bits.
fn visible_columns() -> u32 {
    var n = 0u;
    if (APPLY) {
        for (var first = 0u; first < params.columns; first += 4u * LANES) {
            let columns = columns_of(first);
            let left = mask_at(min(columns, vec4(params.columns - 1u)));
            let ones = select(vec4(0u), vec4(1u), left & (columns < vec4(params.columns)));
            n += ones.x + ones.y + ones.z + ones.w;
        }
        return u32(sum_over_lanes(f32(n)));
    }
    for (var s = lane; s < params.splits; s += LANES) {
        n += counted(s);
    }
    let low = sum_over_lanes(f32(n & 0xffffu));
    let high = sum_over_lanes(f32(n >> 16u));
    return u32(low) + (u32(high) << 16u);
}
