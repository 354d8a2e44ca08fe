// The states of mixed chunks, tiled: k_lin^T v over the tokens of each chunk, SLAB tokens a step.
//
// One workgroup owns ROWS key dims of one chunk of one (batch, kv head), and V_BLOCK chunks of four value dims. How its
// WIDTH x HEIGHT invocations share them is told in shared/tile.wgsl: the rows of the tile are key dims, its terms tokens.
// Workgroup memory: at most 16 KiB. Features: none.
// Source: Hua et al., "Transformer Quality in Linear Time", 2022, section 4.1.
const WIDTH: u32 = 16u;
const HEIGHT: u32 = 16u;
const GROUPS: u32 = 2u;
const COLUMNS: u32 = 2u;
const OWN_KEYS: u32 = 4u;
const SLAB: u32 = 16u;
const KEY_DIM: u32 = 128u;
const V_DIM: u32 = 1536u;
const V_BLOCK: u32 = 32u;

const KEY_CHUNKS: u32 = (KEY_DIM + 3u) / 4u;
const V_CHUNKS: u32 = V_BLOCK; // of the block
const_assert KEY_DIM >= 1u && V_DIM >= 1u && V_BLOCK >= 1u && LEFT_PARTS == 1u; // and V_BLOCK <= state_chunks

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
    let block = workgroup % params.blocks;
    let key_tile = (workgroup / params.blocks) % params.key_tiles;
    let chunk = (workgroup / params.blocks / params.key_tiles) % params.chunks;
    let batch_head = workgroup / params.blocks / params.key_tiles / params.chunks;
    let batch = batch_head / params.kv_heads;
    let kv_head = batch_head % params.kv_heads;
    // The last block starts early enough to be whole.
    let first = min(block * V_BLOCK, params.state_chunks - V_BLOCK);
    let k_base = params.k_start + batch * params.k_batch + kv_head * params.k_head;
    let v_base = params.v_start + batch * params.v_batch + kv_head * params.v_head;
    take_place(local);

    // Tokens from `end` on are hidden: none is read.
    let begin = chunk * params.chunk;
    let end = min(begin + params.chunk, kv_len_of(batch));
    for (var j = begin; j < end; j += SLAB) {
        workgroupBarrier();
        bring_keys(j, end, k_base, kv_head, key_tile * ROW_GROUPS);
        for (var part = 0u; part < RIGHT_PARTS; part++) { // unroll
            let i = part * WORKGROUP + invocation;
            if (has_right(part)) {
                let c = params.state_first + first + i % V_CHUNKS;
                put_right(i, load_v(v_base + min(j + i / V_CHUNKS, end - 1u) * params.v_row, c));
            }
        }
        workgroupBarrier();
        add_slab();
    }

    let place = (batch_head * params.chunks + chunk) * 4u * KEY_CHUNKS;
    write_state(place, key_tile * ROWS, first, block * V_BLOCK - first, 1.0);
}

// To workgroup memory: four dims of four tokens to an invocation. A token past the last weighs nothing.
fn bring_keys(j: u32, end: u32, k_base: u32, kv_head: u32, first_chunk: u32) {
    if (has_left(0u)) {
        let chunk = min(first_chunk + left_group(0u), KEY_CHUNKS - 1u);
        let gamma = affine_gamma(K_LIN_MAP, kv_head, chunk);
        let beta = affine_beta(K_LIN_MAP, kv_head, chunk);
        var dims: mat4x4<f32>;
        for (var i = 0u; i < 4u; i++) { // unroll
            let token = j + 4u * left_chunk(0u) + i;
            let own = load_k(k_base + min(token, end - 1u) * params.k_row, chunk) * gamma + beta;
            dims[i] = select(vec4(0.0), own, token < end);
        }
        put_left(0u, dims);
    }
}
