// The k largest numbers of a row that take part, of equal ones those of the lowest columns: which number is the last, and where. What
// they are, and where that is kept, the op's own file says.
//
// A workgroup owns a row, or, where SPLIT, a split of one in each round, whose tallies every workgroup of the next round adds up. It finds the k-th largest of all pairs (order of the number, complement of the column), which are all
// different, byte by byte from the top: each walk counts the pairs by their next byte, of those that agree so far.
// Workgroup memory: 1 KiB and 20 bytes. Features: none.
// Source: radix selection; Alabi, Blanchard, Gordon and Steinbach, "Fast k-selection algorithms for graphics processing units", 2012.
const WORKGROUP: u32 = 256u;
const SPLIT: bool = false;
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

var<workgroup> counts: array<atomic<u32>, 256>;
var<workgroup> broken: atomic<u32>;
var<workgroup> found: vec3<u32>; // order and column as far as they are known, and how many of those that agree are kept

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
    let row = workgroup / params.splits;
    let split = workgroup % params.splits;
    let begin = split * params.split_chunks;
    let end = min(begin + params.split_chunks, (params.columns + 3u) / 4u);
    if (invocation == 0u) {
        found = vec3(0u, 0u, params.top_k);
        atomicStore(&broken, 0u);
    }
    let rounds = 4u + params.column_bytes;
    if (!SPLIT) {
        for (var round = 0u; round < rounds; round++) {
            tally(row, begin + invocation, end, round, invocation);
            pick(round, invocation);
        }
    } else {
        // A dispatch is a round: first the byte of the round before.
        if (params.round > 0u) {
            load_tallies(row, invocation);
            workgroupBarrier();
            pick(params.round - 1u, invocation);
        }
        if (params.round < rounds) {
            tally(row, begin + invocation, end, params.round, invocation);
            store_tallies(workgroup, invocation);
            return;
        }
    }
    if (invocation == 0u && split == 0u) {
        let last = vec2(found.x, column_ones() - found.y);
        store_last(row, select(last, vec2(0u, 0xffffffffu), atomicLoad(&broken) > 0u));
    }
}

// The bytes of an order from the top, and then those of a column.
fn is_of_order(round: u32) -> bool {
    return round < 4u;
}

fn shift_of(round: u32) -> u32 {
    return 8u * select(params.column_bytes + 3u - round, 3u - round, is_of_order(round));
}

fn tally(row: u32, first: u32, end: u32, round: u32, invocation: u32) {
    workgroupBarrier();
    atomicStore(&counts[invocation], 0u);
    workgroupBarrier();
    let known = found;
    for (var chunk = first; chunk < end; chunk += WORKGROUP) {
        count(row, chunk, known, is_of_order(round), shift_of(round));
    }
    workgroupBarrier();
}

// The byte in which the k-th falls.
fn pick(round: u32, invocation: u32) {
    if (invocation > 0u) {
        return;
    }
    let known = found;
    var left = known.z;
    var byte = 255u;
    for (; byte > 0u; byte--) {
        let here = atomicLoad(&counts[byte]);
        if (here >= left) {
            break;
        }
        left -= here;
    }
    let digit = byte << shift_of(round);
    found = vec3(known.xy | select(vec2(0u, digit), vec2(digit, 0u), is_of_order(round)), left);
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
    let own = ranks(row, chunk);
    if (own.is_broken) {
        atomicStore(&broken, 1u);
    }
    let order = own.order;
    let columns = vec4(4u * chunk) + vec4(0u, 1u, 2u, 3u);
    let value = select(~columns & vec4(column_ones()), order, in_order);
    let so_far = select(known.y, known.x, in_order);
    let above = select(0xffffffffu << ((shift + 8u) % 32u), 0u, shift == 24u);
    let agree = own.see & (((value ^ vec4(so_far)) & vec4(above)) == vec4(0u)) & (vec4(in_order) | (order == vec4(known.x)));
    let bytes = (value >> vec4(shift)) & vec4(0xffu);
    if (agree.x) { atomicAdd(&counts[bytes.x], 1u); }
    if (agree.y) { atomicAdd(&counts[bytes.y], 1u); }
    if (agree.z) { atomicAdd(&counts[bytes.z], 1u); }
    if (agree.w) { atomicAdd(&counts[bytes.w], 1u); }
}
