// The largest term of each row under an exponential map, exp(q_f + k_f): what its weights are relative to, told as q_f and k_f.
//
// One workgroup owns a chunk of rows of one (batch, query head); an invocation owns a vec4 of features, and walks the rows in order with
// the maxima of the keys up to each, from those of the state before. Each BATCH of rows is then searched, a row to an invocation.
// Workgroup memory: 16 * BATCH * WORKGROUP bytes. Features: none.
const WORKGROUP: u32 = 16u; // vec4s of features
const BATCH: u32 = 32u;
const HEAD_DIM: u32 = 64u; // features
const STATE_ROW: u32 = 18u; // vec4s per feature of a state, of which the second holds its maximum
const CAUSAL: bool = true;
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const V_DIM: u32 = HEAD_DIM; // of a row of keys
const LOWEST: f32 = -1.0e38; // the exponent of nothing
const_assert HEAD_DIM >= 1u && 4u * WORKGROUP >= HEAD_DIM;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    first_head: u32, // of this round, counted over batch * kv_heads
    kv_heads: u32,
    group: u32, // query heads per kv head
    q_len: u32, // tokens
    chunk_len: u32, // tokens
    first_chunk: u32, // of this round
    chunks: u32, // in this round
    slots: u32, // states per head in the workspace
    first_slot: u32, // the state of the round's first chunk
    slot_step: u32, // from one chunk's state to the next's: 1, or 0 in full mode
    q_start: u32, // starts and strides in elements; starts may wrap around
    q_batch: u32,
    q_head: u32,
    q_row: u32,
    beside_start: u32, // of keys
    beside_batch: u32,
    beside_head: u32,
    beside_row: u32,
    numbers_start: u32, // in vec4s
    numbers_batch: u32,
    numbers_head: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<Elem>; // [batch, q_heads, q_len, HEAD_DIM]
@group(0) @binding(11) var<storage, read_write> states: array<vec4<f32>>; // [heads, slots, HEAD_DIM, STATE_ROW]
@group(0) @binding(12) var<storage, read_write> numbers: array<vec4<f32>>; // [q_heads, rows of the round]: unit, 1 / w, -do.o, unit

var<workgroup> terms: array<array<vec4<f32>, WORKGROUP>, BATCH>; // q_f, k_f and their sum

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
    let chunk = workgroup % params.chunks;
    let group_head = workgroup / params.chunks;
    let local_head = group_head / params.group;
    let batch = (params.first_head + local_head) / params.kv_heads;
    let kv_head = (params.first_head + local_head) % params.kv_heads;
    let head = kv_head * params.group + group_head % params.group;
    let begin = (params.first_chunk + chunk) * params.chunk_len;
    let end = min(begin + params.chunk_len, params.q_len);
    let q_base = params.q_start + batch * params.q_batch + head * params.q_head;
    let k_base = params.beside_start + batch * params.beside_batch + kv_head * params.beside_head;
    let at = params.numbers_start + batch * params.numbers_batch + head * params.numbers_head;

    let c = min(invocation, (HEAD_DIM - 1u) / 4u);
    let state = (local_head * params.slots + params.first_slot + chunk * params.slot_step) * HEAD_DIM;
    var maxima: vec4<f32>;
    for (var f = 0u; f < 4u; f++) { // unroll
        maxima[f] = states[(state + min(4u * c + f, HEAD_DIM - 1u)) * STATE_ROW + 1u].y;
    }
    for (var first = begin; first < end; first += BATCH) {
        workgroupBarrier();
        for (var i = 0u; i < BATCH; i++) {
            let row = min(first + i, end - 1u);
            if (CAUSAL) {
                maxima = max(maxima, load_beside(k_base + row * params.beside_row, c));
            }
            let own = within(c, load_q(q_base + row * params.q_row, c), LOWEST);
            let sums = own + maxima;
            let largest = max(max(sums.x, sums.y), max(sums.z, sums.w));
            var term = vec4(own.x, maxima.x, largest, 0.0);
            term = select(term, vec4(own.y, maxima.y, largest, 0.0), sums.y == largest);
            term = select(term, vec4(own.z, maxima.z, largest, 0.0), sums.z == largest);
            term = select(term, vec4(own.w, maxima.w, largest, 0.0), sums.w == largest);
            terms[i][invocation] = term;
        }
        workgroupBarrier();
        for (var i = invocation; i < min(BATCH, end - first); i += WORKGROUP) {
            var term = terms[i][0];
            for (var other = 1u; other < WORKGROUP; other++) {
                let own = terms[i][other];
                term = select(term, own, own.z > term.z);
            }
            numbers[at + first + i] = vec4(term.x, 0.0, 0.0, term.y);
        }
    }
}
