// Rows of linear attention in tiles: o = phi(Q) S / (phi(Q) z + eps), from the state of what comes before the rows' chunk and,
// where CAUSAL, from the chunk's own keys up to the row.
//
// One workgroup owns ROWS consecutive queries of one chunk of one (batch, query head), with all their value dims. How its
// WIDTH x HEIGHT invocations share them is told in shared/tile.wgsl: the rows are a tile's rows, the terms of its sums
// are first features, with the state on the right, and then keys.
// Workgroup memory: that of shared/tile.wgsl, where CAUSAL 16 bytes, and 16 * ROW_GROUPS + 4 * KEYS under an exponential map.
// Features: none.
// Source: Katharopoulos et al., "Transformers are RNNs", 2020; Sun et al., "Retentive Network", 2023, section 2.2 (chunks).
const WIDTH: u32 = 16u;
const HEIGHT: u32 = 8u;
const GROUPS: u32 = 2u;
const COLUMNS: u32 = 1u;
const OWN_KEYS: u32 = 4u;
const SLAB: u32 = 16u;
const HEAD_DIM: u32 = 64u; // width of q and k as bound
const V_DIM: u32 = 64u;
const FEATURES: u32 = 64u;
const HEADERS: u32 = 1u; // vec4s before a feature's value dims in a state
const CAUSAL: bool = true;
const NORMALIZED: bool = true;
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const HEAD_SLABS: u32 = (HEAD_DIM + SLAB - 1u) / SLAB;
const FEATURE_CHUNKS: u32 = (FEATURES + 3u) / 4u;
const FEATURE_SLABS: u32 = (FEATURES + SLAB - 1u) / SLAB;
const O_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const V_CHUNKS: u32 = O_CHUNKS;
const ROW: u32 = HEADERS + V_CHUNKS; // vec4s per feature of a state
const_assert HEAD_DIM >= 1u && V_DIM >= 1u && LEFT_PARTS == 1u;

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
    let tile = workgroup % params.tiles;
    let chunk = (workgroup / params.tiles) % params.chunks;
    let group_head = workgroup / params.tiles / params.chunks;
    let local_head = group_head / params.group;
    let batch = (params.first_head + local_head) / params.kv_heads;
    let kv_head = (params.first_head + local_head) % params.kv_heads;
    let head = kv_head * params.group + group_head % params.group;
    let chunk_begin = (params.first_chunk + chunk) * params.chunk_len;
    let begin_row = chunk_begin + tile * ROWS;
    let end_row = min(min(begin_row + ROWS, chunk_begin + params.chunk_len), params.q_len);
    if (begin_row >= end_row) {
        return;
    }
    take_place(local);
    first_row = begin_row;
    let q_base = params.q_start + batch * params.q_batch + head * params.q_head;
    q_at = q_base + min(vec4(begin_row + 4u * left_group(0u)) + vec4(0u, 1u, 2u, 3u), vec4(end_row - 1u)) * params.q_row;

    add_state((local_head * params.slots + params.first_slot + chunk * params.slot_step) * FEATURES * ROW, q_base, end_row - 1u);
    if (CAUSAL) {
        add_own_keys(batch, kv_head, chunk_begin, begin_row, end_row);
    }

    write_rows(batch, head, end_row);
}

// A tile has all chunks of o.
fn chunk_of(c: u32) -> u32 {
    return c;
}
