// How invocations share rows and read their columns, for rows.wgsl and sparse.wgsl: LANES own a row, or one of its splits, and take QUADS
// fours of columns each at a time.
const ROWS: u32 = WORKGROUP / LANES;
const BLOCK: u32 = 4u * LANES * QUADS; // columns
const LOWEST: f32 = -1.0e38; // a score below this counts as this
const MINUS_INFINITY: u32 = 0xff800000u;
const_assert WORKGROUP % LANES == 0u;

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
    loss_start: u32,
    loss_stride: u32,
    labels_start: u32,
    labels_stride: u32,
    support_start: u32,
    support_stride: u32,
    alpha_slopes_start: u32,
    alpha_slopes_stride: u32,
    alpha: f32, // where no tensor has it
    round: u32,
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

var<workgroup> shared_numbers: array<vec4<f32>, WORKGROUP>;

var<private> invocation: u32;
var<private> lane: u32;
var<private> row: u32;
var<private> split: u32;
var<private> is_own: bool; // whether the row is there to be written
var<private> begin: u32; // columns of the row or the split
var<private> end: u32;
var<private> index: u32; // of the row, or of the split among all
var<private> term: f32; // the scale without row_scale
var<private> scale: f32;
var<private> quads: array<Quad, QUADS>;

fn place(workgroup: u32, local: u32) {
    invocation = local;
    lane = local % LANES;
    index = workgroup * ROWS + local / LANES;
    let own_row = index / params.splits;
    is_own = own_row < params.rows;
    row = min(own_row, params.rows - 1u); // past the last, a row is read and not written
    split = index % params.splits;
    begin = split * params.split_columns;
    end = min(begin + params.split_columns, params.columns);
}

fn find_scale() {
    term = params.scale;
    if (COUNT) {
        term *= max(log(f32(max(visible_columns(), params.scale_floor))), params.scale_least);
    }
    scale = term * row_scale_of(row);
}

fn load(first: u32, with_dp: bool) {
    for (var i = 0u; i < QUADS; i++) { // unroll
        quads[i] = load_quad(columns_of(first + i * (4u * LANES)), end, with_dp);
    }
}

fn load_quad(columns: vec4<u32>, end_of_seen: u32, with_dp: bool) -> Quad {
    var quad: Quad;
    quad.columns = columns;
    // Past the last column the last is read again: without a branch, all loads are under way at once.
    let at = min(columns, vec4(params.columns - 1u));
    let found = load_x(at);
    // A column that is not seen takes part in nothing, whatever it holds.
    quad.seen = (columns < vec4(end_of_seen)) & mask_at(at) & (bitcast<vec4<u32>>(found) != vec4(MINUS_INFINITY))
        & keeps(found, columns);
    quad.x = select(vec4(0.0), found, quad.seen);
    if (with_dp) {
        quad.dp = select(vec4(0.0), load_dp(at), quad.seen);
    }
    return quad;
}

// The column of the row's label.
struct Label {
    is_ignored: bool,
    is_outside: bool, // no column of the row
    is_seen: bool,
    x: f32,
}

fn find_label() -> Label {
    let label = label_of();
    let quad = load_quad(vec4(label & 0xfffffffcu) + vec4(0u, 1u, 2u, 3u), params.columns, false);
    let own = quad.columns == vec4(label);
    let x = total(select(vec4(0.0), quad.x, own & quad.seen));
    return Label(label == 0xffffffffu, label >= params.columns, label < params.columns && any(own & quad.seen), x);
}

fn total(numbers: vec4<f32>) -> f32 {
    return (numbers.x + numbers.y) + (numbers.z + numbers.w);
}

// The sums over all invocations of a row, in an order that never changes.
fn sums_over_lanes(from_own: vec4<f32>) -> vec4<f32> {
    if (LANES == 1u) {
        return from_own;
    }
    var own = from_own;
    shared_numbers[invocation] = own;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            own += shared_numbers[invocation + half];
            shared_numbers[invocation] = own;
        }
    }
    workgroupBarrier();
    own = shared_numbers[invocation - lane];
    workgroupBarrier();
    return own;
}

fn sum_over_lanes(own: f32) -> f32 {
    return sums_over_lanes(vec4(own, 0.0, 0.0, 0.0)).x;
}

// An infinity only as bits, and out of a uniform: of a literal, compilers may make what they like.
fn minus_infinity() -> f32 {
    return bitcast<f32>(params.minus_infinity);
}

fn not_a_number() -> f32 {
    return bitcast<f32>(params.minus_infinity | 0x400000u);
}
