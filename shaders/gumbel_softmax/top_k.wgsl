// The k largest logits of a row that take part, of equal ones those of the lowest columns: which logit is the last, and where.
//
// A workgroup owns a row. It finds the k-th largest of all pairs (order of the logit, complement of the column), which are all
// different, byte by byte from the top: each walk counts the pairs by their next byte, of those that agree so far.
// Workgroup memory: 1 KiB and 16 bytes. Features: none.
// Source: radix selection; Alabi, Blanchard, Gordon and Steinbach, "Fast k-selection algorithms for graphics processing units", 2012.
const WORKGROUP: u32 = 256u;
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    columns: u32, // classes
    top_k: u32,
    column_bytes: u32, // that tell the row's columns apart
    logits_start: u32, // starts and strides in elements
    logits_rows: u32,
    mask_start: u32, // bytes
    mask_rows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> row_state: array<vec4<u32>>; // [rows, 2]

var<workgroup> counts: array<atomic<u32>, 256>;
var<workgroup> found: vec3<u32>; // order and column as far as they are known, and how many of those that agree are kept

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let row = workgroup_index(workgroup_id, num_workgroups);
    if (row >= params.end_workgroup) {
        return;
    }
    if (invocation == 0u) {
        found = vec3(0u, 0u, params.top_k);
    }
    for (var round = 0u; round < 4u + params.column_bytes; round++) {
        atomicStore(&counts[invocation], 0u);
        workgroupBarrier();

        // The bytes of an order from the top, and then those of a column.
        let in_order = round < 4u;
        let shift = 8u * select(params.column_bytes + 3u - round, 3u - round, in_order);
        let known = found;
        for (var chunk = invocation; 4u * chunk < params.columns; chunk += WORKGROUP) {
            count(row, chunk, known, in_order, shift);
        }
        workgroupBarrier();

        // The byte in which the k-th falls.
        if (invocation == 0u) {
            var left = known.z;
            var byte = 255u;
            for (; byte > 0u; byte--) {
                let here = atomicLoad(&counts[byte]);
                if (here >= left) {
                    break;
                }
                left -= here;
            }
            let digit = byte << shift;
            found = vec3(known.xy | select(vec2(0u, digit), vec2(digit, 0u), in_order), left);
        }
        workgroupBarrier();
    }
    if (invocation == 0u) {
        let state = row_state[2u * row + 1u];
        row_state[2u * row + 1u] = vec4(state.xy, found.x, column_ones() - found.y);
    }
}

// As many bytes of ones as columns need.
fn column_ones() -> u32 {
    return 0xffffffffu >> (32u - 8u * params.column_bytes);
}

fn count(row: u32, chunk: u32, known: vec3<u32>, in_order: bool, shift: u32) {
    let bits = bitcast<vec4<u32>>(load_logits(params.logits_start + row * params.logits_rows, chunk));
    let columns = vec4(4u * chunk) + vec4(0u, 1u, 2u, 3u);
    let visible = (columns < vec4(params.columns)) & mask4(row, chunk) & (bits != vec4(0xff800000u));
    let order = order4(bits);
    let value = select(~columns & vec4(column_ones()), order, in_order);
    let so_far = select(known.y, known.x, in_order);
    let above = select(0xffffffffu << ((shift + 8u) % 32u), 0u, shift == 24u);
    let agree = visible & (((value ^ vec4(so_far)) & vec4(above)) == vec4(0u)) & (vec4(in_order) | (order == vec4(known.x)));
    let bytes = (value >> vec4(shift)) & vec4(0xffu);
    if (agree.x) { atomicAdd(&counts[bytes.x], 1u); }
    if (agree.y) { atomicAdd(&counts[bytes.y], 1u); }
    if (agree.z) { atomicAdd(&counts[bytes.z], 1u); }
    if (agree.w) { atomicAdd(&counts[bytes.w], 1u); }
}
