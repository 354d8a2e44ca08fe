// Gathers what rows have of their own (tau, seed, id), so that the kernels that walk columns bind one buffer for it.
//
// An invocation owns a row.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    first_row: u32, // the first of those that are gathered, among all
    rows: u32,
    tau: f32, // the temperature, where no tensor has it
    taus: u32, // numbers in tau: 1 or rows
    key_start: u32, // starts and strides in elements
    key_stride: u32,
    tau_start: u32,
    tau_stride: u32,
    seeds_start: u32,
    seeds_stride: u32,
    row_ids_start: u32,
    row_ids_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> key: array<u32>; // [5]: seed low, seed high, stream, step, row offset
@group(0) @binding(2) var<storage, read_write> row_state: array<vec4<u32>>; // [rows, 2]

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
    let row = workgroup * WORKGROUP + invocation;
    if (row >= params.rows) {
        return;
    }
    let at = params.key_start;
    let next = params.key_stride;
    let id = id_of(row) + key[at + 4u * next];
    // Bits 0 stand for what is not above 0, or below the least normal number, or no number.
    let bits = tau_bits(row);
    let usable = bits >= 0x00800000u && bits < 0x7f800000u;
    // Above 1e36, where all weights are 1 anyway, a product would overflow.
    let tau = select(0u, min(bits, bitcast<u32>(1e36)), usable);
    row_state[2u * row] = vec4(seed_of(row, key[at]), key[at + next], id, key[at + 2u * next]);
    row_state[2u * row + 1u] = vec4(key[at + 3u * next], tau, 0u, 0xffffffffu);
}
