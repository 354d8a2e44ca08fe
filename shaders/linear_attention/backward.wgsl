// Gradients of linear attention's queries, keys and values in tiles: what a state adds, and, where CAUSAL, pairs of the rows' own chunk.
//
//   dphi(Q) = dN ST + dw zT + (dN VT + dw) psi(K);   dpsi(K) = V GT + hT + (dN VT + dw)T phi(Q);   dV = psi(K) G + (phi(Q) psi(K)T)T dN
// Each is a forward pass with other roles: rows are what q holds, weights are products of q and k, and they add up v; `beside` is what the
// rows are through the map. The gradients of keys and values are of rows that see what comes after them: REVERSE.
// One workgroup owns ROWS consecutive rows of one chunk of one (batch, head), and V_CHUNKS chunks of their gradients. How its
// WIDTH x HEIGHT invocations share them is told in shared/tile.wgsl.
// Workgroup memory: that of shared/tile.wgsl, and where CAUSAL 16 bytes. Features: none.
// Source: Katharopoulos et al., "Transformers are RNNs", 2020, eqs. 13 to 15.
const WIDTH: u32 = 16u;
const HEIGHT: u32 = 8u;
const GROUPS: u32 = 2u;
const COLUMNS: u32 = 1u;
const OWN_KEYS: u32 = 4u;
const SLAB: u32 = 16u;
const HEAD_DIM: u32 = 64u; // width of q and k as bound
const V_DIM: u32 = 64u; // width of v as bound, and of the gradient
const V_CHUNKS: u32 = 16u; // of a row of the gradient, those that a workgroup owns
const STATE_DIM: u32 = 64u; // value dims of a state
const FEATURES: u32 = 64u;
const HEADERS: u32 = 1u; // vec4s before a feature's value dims in a state
const REVERSE: bool = false;
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const HEAD_SLABS: u32 = (HEAD_DIM + SLAB - 1u) / SLAB;
const FEATURE_CHUNKS: u32 = (FEATURES + 3u) / 4u;
const FEATURE_SLABS: u32 = (FEATURES + SLAB - 1u) / SLAB;
const O_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const ROW: u32 = HEADERS + (STATE_DIM + 3u) / 4u; // vec4s per feature of a state
const_assert HEAD_DIM >= 1u && V_DIM >= 1u && LEFT_PARTS == 1u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    first_head: u32, // of this round, counted over batch * kv_heads
    kv_heads: u32,
    own_heads: u32, // heads of rows per kv head
    walked_heads: u32, // heads of what is walked per head of rows
    rows: u32, // tokens
    chunk_len: u32, // tokens
    first_chunk: u32, // of this round
    chunks: u32, // in this round
    tiles: u32, // workgroups per chunk, head and block: ceil(chunk_len / ROWS)
    blocks: u32, // ceil(O_CHUNKS / V_CHUNKS)
    slots: u32, // states per head in the workspace
    first_slot: u32, // the state of the round's first chunk
    slot_step: u32, // from one chunk's state to the next's: 1, or 0 in full mode
    input_scale: f32, // of the second-order Taylor map
    q_start: u32, // starts and strides in elements; starts may wrap around
    q_batch: u32,
    q_head: u32,
    q_row: u32,
    k_start: u32,
    k_batch: u32,
    k_head: u32,
    k_row: u32,
    v_start: u32,
    v_batch: u32,
    v_head: u32,
    v_row: u32,
    o_start: u32,
    o_batch: u32,
    o_head: u32,
    o_row: u32,
    beside_start: u32,
    beside_batch: u32,
    beside_head: u32,
    beside_row: u32,
    numbers_start: u32, // in vec4s
    numbers_batch: u32,
    numbers_head: u32,
    kv_len: u32, // rows that count, but for kv_lens
    kv_lens_start: u32,
    kv_lens_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<Elem>; // [batch, heads, rows, HEAD_DIM]
@group(0) @binding(11) var<storage, read_write> states: array<vec4<f32>>; // [heads, slots, FEATURES, ROW]

var<private> first_chunk: u32; // of the block
var<private> beside_at: u32; // where the head's rows of `beside` start
var<private> numbers_at: u32; // and those of the numbers of rows

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
    let tile = workgroup / params.blocks % params.tiles;
    let chunk = workgroup / params.blocks / params.tiles % params.chunks;
    let own_head = workgroup / params.blocks / params.tiles / params.chunks;
    let local_head = own_head / params.own_heads;
    let batch = (params.first_head + local_head) / params.kv_heads;
    let head = (params.first_head + local_head) % params.kv_heads * params.own_heads + own_head % params.own_heads;
    let chunk_begin = (params.first_chunk + chunk) * params.chunk_len;
    let chunk_end = min(chunk_begin + params.chunk_len, params.rows);
    let begin_row = chunk_begin + tile * ROWS;
    let end_row = min(begin_row + ROWS, chunk_end);
    if (begin_row >= end_row) {
        return;
    }
    take_place(local);
    first_chunk = workgroup % params.blocks * V_CHUNKS;
    first_row = begin_row;
    let q_base = params.q_start + batch * params.q_batch + head * params.q_head;
    q_at = q_base + min(vec4(begin_row + 4u * left_group(0u)) + vec4(0u, 1u, 2u, 3u), vec4(end_row - 1u)) * params.q_row;
    beside_at = params.beside_start + batch * params.beside_batch + head * params.beside_head;
    numbers_at = params.numbers_start + batch * params.numbers_batch + head * params.numbers_head;
    take_rows(end_row - 1u);
    take_own(end_row - 1u);

    add_state((local_head * params.slots + params.first_slot + chunk * params.slot_step) * FEATURES * ROW, q_base, end_row - 1u);
    // Those of the queries are after one kv head, those of keys and values after all query heads that read them.
    walk_chunk(batch, head * params.walked_heads / params.own_heads, vec4(chunk_begin, begin_row, end_row, chunk_end));

    let base = params.o_start + batch * params.o_batch + head * params.o_head;
    for (var g = 0u; g < GROUPS; g++) { // unroll
        let rows = rows_of(g);
        for (var r = 0u; r < 4u; r++) { // unroll
            for (var c = 0u; c < COLUMNS; c++) { // unroll
                let chunk = chunk_of(x + c * WIDTH);
                if (rows[r] < end_row && x + c * WIDTH < V_CHUNKS && chunk < O_CHUNKS) {
                    let value = through_map(o_tile[4u * g + r][c], rows[r], chunk);
                    store_o(base + rows[r] * params.o_row, chunk, select(vec4(0.0), value, rows[r] < kv_len_of(batch)));
                }
            }
        }
    }
}

fn chunk_of(c: u32) -> u32 {
    return first_chunk + c;
}
