// Gathers the gammas and betas of two affine maps of z, each anywhere, into one buffer: kernels bind few buffers.
//
// One invocation owns four dims of one head.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;
const KEY_DIM: u32 = 128u;

const KEY_CHUNKS: u32 = (KEY_DIM + 3u) / 4u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    heads: u32,
    first_map: u32, // of the two, in `maps`
    query_beta: u32, // 0: beta is 0, and its binding holds something else
    key_beta: u32,
    query_gamma_start: u32, // starts and strides in elements
    query_gamma_head: u32,
    query_beta_start: u32,
    query_beta_head: u32,
    key_gamma_start: u32,
    key_gamma_head: u32,
    key_beta_start: u32,
    key_beta_head: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> query_gamma: array<f32>; // [heads, key_dim]
@group(0) @binding(2) var<storage, read> query_beta: array<f32>; // [heads, key_dim]
@group(0) @binding(3) var<storage, read> key_gamma: array<f32>; // [heads, key_dim]
@group(0) @binding(4) var<storage, read> key_beta: array<f32>; // [heads, key_dim]
@group(0) @binding(6) var<storage, read_write> maps: array<vec4<f32>>; // [map, head, gamma or beta, key_dim / 4]

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    let index = workgroup * WORKGROUP + invocation;
    let head = index / KEY_CHUNKS;
    let chunk = index % KEY_CHUNKS;
    if (workgroup >= params.end_workgroup || head >= params.heads) {
        return;
    }
    let query = ((params.first_map * params.heads + head) * 2u) * KEY_CHUNKS + chunk;
    let key = (((params.first_map + 1u) * params.heads + head) * 2u) * KEY_CHUNKS + chunk;
    let query_gamma_at = params.query_gamma_start + head * params.query_gamma_head + 4u * chunk;
    let query_beta_at = params.query_beta_start + head * params.query_beta_head + 4u * chunk;
    let key_gamma_at = params.key_gamma_start + head * params.key_gamma_head + 4u * chunk;
    let key_beta_at = params.key_beta_start + head * params.key_beta_head + 4u * chunk;
    // Past the last dim all are 0.
    var rows = mat4x4<f32>();
    for (var c = 0u; c < 4u; c++) {
        if (4u * chunk + c < KEY_DIM) {
            rows[0][c] = query_gamma[query_gamma_at + c];
            rows[2][c] = key_gamma[key_gamma_at + c];
            if (params.query_beta == 1u) {
                rows[1][c] = query_beta[query_beta_at + c];
            }
            if (params.key_beta == 1u) {
                rows[3][c] = key_beta[key_beta_at + c];
            }
        }
    }
    maps[query] = rows[0];
    maps[query + KEY_CHUNKS] = rows[1];
    maps[key] = rows[2];
    maps[key + KEY_CHUNKS] = rows[3];
}
