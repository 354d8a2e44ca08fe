// Features of queries or keys whose map needs whole rows, written to the workspace; the next kernels read them as rows
// of HEAD_DIM = FEATURES numbers.
//
// One workgroup owns 4 * WORKGROUP consecutive rows and 4 * BLOCK features of one (batch, head).
// One invocation owns four rows, whose dims it keeps (features_kept.wgsl) or reads again (features_again.wgsl). A vec4 holds one
// number for each of them; a mat4x4 holds four dims or features of them, its columns being those.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 8u;
const HEAD_DIM: u32 = 64u;
const FEATURES: u32 = 65u;
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const FEATURE_CHUNKS: u32 = (FEATURES + 3u) / 4u;
const BLOCK: u32 = 16u; // vec4s of features per workgroup
const_assert HEAD_DIM >= 1u && FEATURES >= 1u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    first_head: u32, // of this round, counted over batch * heads
    heads: u32,
    first_row: u32, // of this round
    rows: u32, // in this round
    tiles: u32, // ceil(rows / (4 * WORKGROUP))
    blocks: u32, // ceil(FEATURE_CHUNKS / BLOCK)
    input_scale: f32, // of FAVOR+; else 1
    log_norm: f32, // of FAVOR+: log(FEATURES) / 2
    q_start: u32, // starts and strides in elements
    q_batch: u32,
    q_head: u32,
    q_row: u32,
    projection_start: u32,
    projection_row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<Elem>; // [batch, heads, len, head_dim]: queries, or keys
@group(0) @binding(10) var<storage, read_write> features: array<vec4<f32>>; // [heads, rows, FEATURE_CHUNKS]

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
    let tile = (workgroup / params.blocks) % params.tiles;
    let local_head = workgroup / params.blocks / params.tiles;
    let batch = (params.first_head + local_head) / params.heads;
    let head = (params.first_head + local_head) % params.heads;
    let first = (tile * WORKGROUP + invocation) * 4u;
    let row = min(vec4(first, first + 1u, first + 2u, first + 3u), vec4(params.rows - 1u));
    let base = vec4(params.q_start + batch * params.q_batch + head * params.q_head)
        + (params.first_row + row) * params.q_row;
    keep_rows(base);
    begin_rows();
    for (var c = block * BLOCK; c < min((block + 1u) * BLOCK, FEATURE_CHUNKS); c++) {
        let rows = transpose(row_features(c));
        for (var r = 0u; r < 4u; r++) {
            if (first + r < params.rows) {
                features[(local_head * params.rows + first + r) * FEATURE_CHUNKS + c] = rows[r];
            }
        }
    }
}
