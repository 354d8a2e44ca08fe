// The states of mixed chunks: k_lin^T v over the tokens of each chunk, eight tokens a step.
//
// One workgroup owns 4 * WORKGROUP key dims of one chunk of one (batch, kv head), and V_BLOCK chunks of four value dims.
// One invocation owns four key dims: a vec4 holds one number for each of them, a mat4x4 four value dims of them, its
// columns being the value dims. v is read at addresses that are uniform in the workgroup, and so is all control flow.
// Workgroup memory: none. Features: none.
// Source: Hua et al., "Transformer Quality in Linear Time", 2022, section 4.1.
const WORKGROUP: u32 = 8u;
const KEY_DIM: u32 = 128u;
const V_DIM: u32 = 1536u;
const V_BLOCK: u32 = 32u;

const KEY_CHUNKS: u32 = (KEY_DIM + 3u) / 4u;
const V_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const TOKENS: u32 = 8u; // per step
const_assert KEY_DIM >= 1u && V_DIM >= 1u && V_BLOCK >= 1u && V_BLOCK <= V_CHUNKS; // and <= state_chunks

var<private> state_block: array<mat4x4<f32>, V_BLOCK>;
// The affine map of this invocation's key dims.
var<private> gamma: vec4<f32>;
var<private> beta: vec4<f32>;

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
    let block = workgroup % params.blocks;
    let key_tile = (workgroup / params.blocks) % params.key_tiles;
    let chunk = (workgroup / params.blocks / params.key_tiles) % params.chunks;
    let batch_head = workgroup / params.blocks / params.key_tiles / params.chunks;
    let batch = batch_head / params.kv_heads;
    let kv_head = batch_head % params.kv_heads;
    // The last block starts early enough to be whole; what it shares with the one before belongs there.
    let first = min(block * V_BLOCK, params.state_chunks - V_BLOCK);
    let v_own = block * V_BLOCK - first;
    let v_first = params.state_first + first;
    let k_base = params.k_start + batch * params.k_batch + kv_head * params.k_head;
    let v_base = params.v_start + batch * params.v_batch + kv_head * params.v_head;
    let key_chunk = key_tile * WORKGROUP + invocation;
    let k_chunk = min(key_chunk, KEY_CHUNKS - 1u);

    gamma = affine_gamma(K_LIN_MAP, kv_head, k_chunk);
    beta = affine_beta(K_LIN_MAP, kv_head, k_chunk);
    for (var b = 0u; b < V_BLOCK; b++) {
        state_block[b] = mat4x4<f32>();
    }

    // Tokens from `end` on are hidden: none is read.
    let begin = chunk * params.chunk;
    let end = min(begin + params.chunk, kv_len_of(batch));
    for (var j = begin; j < end; j += TOKENS) {
        let token0 = min(vec4(j, j + 1u, j + 2u, j + 3u), vec4(end - 1u));
        let token1 = min(vec4(j + 4u, j + 5u, j + 6u, j + 7u), vec4(end - 1u));
        let k0 = vec4(k_base) + token0 * params.k_row;
        let k1 = vec4(k_base) + token1 * params.k_row;
        // A step past the end takes the last token again, times 0.
        let left = end - j;
        let p0 = mapped(k0.x, k_chunk);
        let p1 = select(vec4(0.0), mapped(k0.y, k_chunk), left > 1u);
        let p2 = select(vec4(0.0), mapped(k0.z, k_chunk), left > 2u);
        let p3 = select(vec4(0.0), mapped(k0.w, k_chunk), left > 3u);
        let p4 = select(vec4(0.0), mapped(k1.x, k_chunk), left > 4u);
        let p5 = select(vec4(0.0), mapped(k1.y, k_chunk), left > 5u);
        let p6 = select(vec4(0.0), mapped(k1.z, k_chunk), left > 6u);
        let p7 = select(vec4(0.0), mapped(k1.w, k_chunk), left > 7u);
        let v0 = vec4(v_base) + token0 * params.v_row;
        let v1 = vec4(v_base) + token1 * params.v_row;
        for (var b = 0u; b < V_BLOCK; b++) {
            let c = v_first + b;
            var state = state_block[b];
            state = add_product(state, p0, load_v(v0.x, c));
            state = add_product(state, p1, load_v(v0.y, c));
            state = add_product(state, p2, load_v(v0.z, c));
            state = add_product(state, p3, load_v(v0.w, c));
            state = add_product(state, p4, load_v(v1.x, c));
            state = add_product(state, p5, load_v(v1.y, c));
            state = add_product(state, p6, load_v(v1.z, c));
            state = add_product(state, p7, load_v(v1.w, c));
            state_block[b] = state;
        }
    }

    if (key_chunk >= KEY_CHUNKS) {
        return;
    }
    let place = (batch_head * params.chunks + chunk) * 4u * KEY_CHUNKS + 4u * key_chunk;
    for (var b = v_own; b < V_BLOCK; b++) {
        let rows = transpose(state_block[b]);
        for (var r = 0u; r < 4u; r++) {
            states[(place + r) * params.state_chunks + first + b] = rows[r];
        }
    }
}

// Four dims of a key.
fn mapped(base: u32, chunk: u32) -> vec4<f32> {
    return load_k(base, chunk) * gamma + beta;
}
