// The k largest numbers of a row that take part, of equal ones those of the lowest columns: which number is the last, and where. What
// they are, and where that is kept, the op's own file says.
//
// LANES invocations own a row, or, where SPLIT, a workgroup a split of one in each round, whose tallies every workgroup of the next round
// adds up. They find the k-th largest of all pairs (order of the number, complement of the column), which are all different, byte by byte
// from the top: each walk counts the pairs by their next byte, of those that agree so far.
// Workgroup memory: 1 KiB and 20 bytes a row. Features: none.
// Source: radix selection; Alabi, Blanchard, Gordon and Steinbach, "Fast k-selection algorithms for graphics processing units", 2012.
const WORKGROUP: u32 = 256u;
const LANES: u32 = 256u;
const SPLIT: bool = false;
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const ROWS: u32 = WORKGROUP / LANES;
const BYTES: u32 = 256u; // that there are

const_assert WORKGROUP % LANES == 0u && !(SPLIT && ROWS > 1u);

// Of each row of the workgroup.
var<workgroup> counts: array<atomic<u32>, BYTES * ROWS>;
var<workgroup> broken: array<atomic<u32>, ROWS>;
var<workgroup> found: array<vec3<u32>, ROWS>; // order and column as far as they are known, and how many of those that agree are kept

var<private> own: u32; // the row of the workgroup
var<private> own_lane: u32;

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
    own = invocation / LANES;
    own_lane = invocation % LANES;
    let index = workgroup * ROWS + own;
    let row = min(index / params.splits, params.rows - 1u); // past the last, a row is read and not written
    let split = index % params.splits;
    let begin = split * params.split_chunks;
    let end = min(begin + params.split_chunks, (params.columns + 3u) / 4u);
    if (own_lane == 0u) {
        found[own] = vec3(0u, 0u, params.top_k);
        atomicStore(&broken[own], 0u);
    }
    let rounds = 4u + params.column_bytes;
    if (!SPLIT) {
        for (var round = 0u; round < rounds; round++) {
            tally(row, begin + own_lane, end, round);
            pick(round);
        }
    } else {
        // A dispatch is a round: first the byte of the round before.
        if (params.round > 0u) {
            load_tallies(row, invocation);
            workgroupBarrier();
            pick(params.round - 1u);
        }
        if (params.round < rounds) {
            tally(row, begin + own_lane, end, params.round);
            store_tallies(workgroup, invocation);
            return;
        }
    }
    if (own_lane == 0u && split == 0u && index / params.splits == row) {
        let last = vec2(found[own].x, column_ones() - found[own].y);
        store_last(row, select(last, vec2(0u, 0xffffffffu), atomicLoad(&broken[own]) > 0u));
    }
}

// The bytes of an order from the top, and then those of a column.
fn is_of_order(round: u32) -> bool {
    return round < 4u;
}

fn shift_of(round: u32) -> u32 {
    return 8u * select(params.column_bytes + 3u - round, 3u - round, is_of_order(round));
}

fn tally(row: u32, first: u32, end: u32, round: u32) {
    workgroupBarrier();
    for (var byte = own_lane; byte < BYTES; byte += LANES) {
        atomicStore(&counts[BYTES * own + byte], 0u);
    }
    workgroupBarrier();
    let known = found[own];
    for (var chunk = first; chunk < end; chunk += LANES) {
        count(row, chunk, known, is_of_order(round), shift_of(round));
    }
    workgroupBarrier();
}

// The byte in which the k-th falls.
fn pick(round: u32) {
    if (own_lane > 0u) {
        return;
    }
    let known = found[own];
    var left = known.z;
    var byte = 255u;
    for (; byte > 0u; byte--) {
        let here = atomicLoad(&counts[BYTES * own + byte]);
        if (here >= left) {
            break;
        }
        left -= here;
    }
    let digit = byte << shift_of(round);
    found[own] = vec3(known.xy | select(vec2(0u, digit), vec2(digit, 0u), is_of_order(round)), left);
}

// Four columns of a row.
struct Ranks {
    see: vec4<bool>, // which take part
    order: vec4<u32>,
    is_broken: bool, // whether all of the row is kept, as one of them is no number
}

// As many bytes of ones as columns need.
fn column_ones() -> u32 {
    return 0xffffffffu >> (32u - 8u * params.column_bytes);
}

fn count(row: u32, chunk: u32, known: vec3<u32>, in_order: bool, shift: u32) {
    let some = ranks(row, chunk);
    if (some.is_broken) {
        atomicStore(&broken[own], 1u);
    }
    let order = some.order;
    let columns = vec4(4u * chunk) + vec4(0u, 1u, 2u, 3u);
    let value = select(~columns & vec4(column_ones()), order, in_order);
    let so_far = select(known.y, known.x, in_order);
    let above = select(0xffffffffu << ((shift + 8u) % 32u), 0u, shift == 24u);
    let agree = some.see & (((value ^ vec4(so_far)) & vec4(above)) == vec4(0u)) & (vec4(in_order) | (order == vec4(known.x)));
    let bytes = vec4(BYTES * own) + ((value >> vec4(shift)) & vec4(0xffu));
    if (agree.x) { atomicAdd(&counts[bytes.x], 1u); }
    if (agree.y) { atomicAdd(&counts[bytes.y], 1u); }
    if (agree.z) { atomicAdd(&counts[bytes.z], 1u); }
    if (agree.w) { atomicAdd(&counts[bytes.w], 1u); }
}
