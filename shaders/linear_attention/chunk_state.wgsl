// Sums over chunks of keys: S = sum of psi(k) vT and z = sum of psi(k), for every feature of every chunk.
//
// One workgroup owns 4 * WORKGROUP features, 4 * V_BLOCK value dims and one chunk of one (batch, kv head).
// One invocation owns four features: a vec4 holds one number for each of them, a mat4x4 four value dims of them, its
// columns being the features. Keys are taken eight a step; values are read at addresses uniform in the workgroup.
// Sums of an unbounded map are relative to the chunk's own maximum of the feature, so that they stay finite.
// Workgroup memory: none. Features: none.
// Source: Katharopoulos et al., "Transformers are RNNs", 2020, eqs. 5 and 6.
const WORKGROUP: u32 = 8u;
const HEAD_DIM: u32 = 64u; // width of k as bound
const V_DIM: u32 = 64u;
const FEATURES: u32 = 64u;
const HEADERS: u32 = 1u; // vec4s before a feature's value dims: a second where a running maximum is carried
const V_BLOCK: u32 = 16u; // in vec4s
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const V_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const ROW: u32 = HEADERS + V_CHUNKS; // vec4s per feature of a state
const KEYS: u32 = 8u; // per step
const_assert HEAD_DIM >= 1u && V_DIM >= 1u && V_BLOCK >= 1u;

var<private> s_block: array<mat4x4<f32>, V_BLOCK>;

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
    let tile = workgroup % params.feature_tiles;
    let block = (workgroup / params.feature_tiles) % params.value_blocks;
    let chunk_head = workgroup / params.feature_tiles / params.value_blocks;
    let chunk = chunk_head % params.chunks;
    let local_head = chunk_head / params.chunks;
    let batch = (params.first_head + local_head) / params.kv_heads;
    let head = (params.first_head + local_head) % params.kv_heads;
    let k_base = params.k_start + batch * params.k_batch + head * params.k_head;
    let v_base = params.v_start + batch * params.v_batch + head * params.v_head;
    let begin = (params.first_chunk + chunk) * params.chunk_len;
    let end = min(begin + params.chunk_len, kv_len_of(batch));
    let first_v = block * V_BLOCK;

    let first_feature = 4u * (tile * WORKGROUP + invocation);
    if (first_feature >= FEATURES) {
        return;
    }
    begin_features(first_feature, k_base, begin, end);
    for (var c = 0u; c < V_BLOCK; c++) {
        s_block[c] = mat4x4<f32>();
    }
    var z = vec4(0.0);
    for (var j = begin; j < end; j += KEYS) {
        // Eight keys, none past the last; a repeated one weighs nothing.
        let key0 = min(vec4(j, j + 1u, j + 2u, j + 3u), vec4(end - 1u));
        let key1 = min(vec4(j + 4u, j + 5u, j + 6u, j + 7u), vec4(end - 1u));
        let k0 = vec4(k_base) + key0 * params.k_row;
        let k1 = vec4(k_base) + key1 * params.k_row;
        let zero = vec4(0.0);
        let p0 = key_features(k0.x);
        let p1 = select(zero, key_features(k0.y), j + 1u < end);
        let p2 = select(zero, key_features(k0.z), j + 2u < end);
        let p3 = select(zero, key_features(k0.w), j + 3u < end);
        let p4 = select(zero, key_features(k1.x), j + 4u < end);
        let p5 = select(zero, key_features(k1.y), j + 5u < end);
        let p6 = select(zero, key_features(k1.z), j + 6u < end);
        let p7 = select(zero, key_features(k1.w), j + 7u < end);
        z += ((p0 + p1) + (p2 + p3)) + ((p4 + p5) + (p6 + p7));

        // S += psi(k) vT.
        let v0 = vec4(v_base) + key0 * params.v_row;
        let v1 = vec4(v_base) + key1 * params.v_row;
        for (var c = 0u; c < V_BLOCK; c++) {
            let at = min(first_v + c, V_CHUNKS - 1u);
            var s4 = s_block[c];
            s4 = add_product(s4, load_v(v0.x, at), p0);
            s4 = add_product(s4, load_v(v0.y, at), p1);
            s4 = add_product(s4, load_v(v0.z, at), p2);
            s4 = add_product(s4, load_v(v0.w, at), p3);
            s4 = add_product(s4, load_v(v1.x, at), p4);
            s4 = add_product(s4, load_v(v1.y, at), p5);
            s4 = add_product(s4, load_v(v1.z, at), p6);
            s4 = add_product(s4, load_v(v1.w, at), p7);
            s_block[c] = s4;
        }
    }

    let base = ((local_head * params.slots + chunk) * FEATURES + first_feature) * ROW;
    let maximum = key_maximum();
    for (var r = 0u; r < min(4u, FEATURES - first_feature); r++) {
        if (block == 0u) {
            states[base + r * ROW] = vec4(z[r], maximum[r], 0.0, 0.0);
        }
        for (var c = 0u; c < V_BLOCK; c++) {
            if (first_v + c < V_CHUNKS) {
                states[base + r * ROW + HEADERS + first_v + c] = s_block[c][r];
            }
        }
    }
}

// Adds four dims of one value times four features: column f is feature f.
fn add_product(s4: mat4x4<f32>, value: vec4<f32>, p: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(
        fma(value, vec4(p.x), s4[0]),
        fma(value, vec4(p.y), s4[1]),
        fma(value, vec4(p.z), s4[2]),
        fma(value, vec4(p.w), s4[3]),
    );
}
