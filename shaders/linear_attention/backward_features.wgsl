// Gradients through maps that need whole rows: from those of features, or of their logarithms, to those of queries or keys.
//
// One workgroup owns 4 * WORKGROUP consecutive rows and 4 * BLOCK dims of one (batch, head).
// One invocation owns four rows. A vec4 holds one number for each of them; a mat4x4 holds four dims or features of them, its columns
// being those.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 32u;
const HEAD_DIM: u32 = 64u;
const FEATURES: u32 = 65u;
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const V_DIM: u32 = HEAD_DIM; // of a row of the gradient
const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const FEATURE_CHUNKS: u32 = (FEATURES + 3u) / 4u;
const BLOCK: u32 = 16u; // vec4s of dims per workgroup
const_assert HEAD_DIM >= 1u && FEATURES >= 1u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    first_head: u32, // of this round, counted over batch * heads
    heads: u32,
    first_row: u32, // of this round
    rows: u32, // in this round
    tiles: u32, // ceil(rows / (4 * WORKGROUP))
    blocks: u32, // ceil(HEAD_CHUNKS / BLOCK)
    input_scale: f32, // of FAVOR+; else 1
    log_norm: f32, // of FAVOR+: log(FEATURES) / 2
    q_start: u32, // starts and strides in elements
    q_batch: u32,
    q_head: u32,
    q_row: u32,
    o_start: u32,
    o_batch: u32,
    o_head: u32,
    o_row: u32,
    projection_start: u32,
    projection_row: u32,
    kv_len: u32, // rows that count, but for kv_lens
    kv_lens_start: u32,
    kv_lens_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<Elem>; // [batch, heads, len, head_dim]: queries, or keys
@group(0) @binding(10) var<storage, read_write> features: array<vec4<f32>>; // [heads, rows, FEATURE_CHUNKS]: their gradients

var<private> gradients_at: vec4<u32>; // where those of the four rows start

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
    let tile = workgroup / params.blocks % params.tiles;
    let local_head = workgroup / params.blocks / params.tiles;
    let batch = (params.first_head + local_head) / params.heads;
    let head = (params.first_head + local_head) % params.heads;
    let first = (tile * WORKGROUP + invocation) * 4u;
    let row = min(vec4(first) + vec4(0u, 1u, 2u, 3u), vec4(params.rows - 1u));
    gradients_at = (local_head * params.rows + row) * FEATURE_CHUNKS;
    keep_rows(vec4(params.q_start + batch * params.q_batch + head * params.q_head) + (params.first_row + row) * params.q_row);
    begin_rows();
    begin_gradients();
    let base = params.o_start + batch * params.o_batch + head * params.o_head;
    for (var c = block * BLOCK; c < min((block + 1u) * BLOCK, HEAD_CHUNKS); c++) {
        let rows = transpose(row_gradient(c));
        for (var r = 0u; r < 4u; r++) {
            let position = params.first_row + first + r;
            if (first + r < params.rows) {
                store_o(base + position * params.o_row, c, select(vec4(0.0), rows[r], position < kv_len_of(batch)));
            }
        }
    }
}

// The gradients of features 4c to 4c + 3; 0 past the last.
fn gradients(c: u32) -> mat4x4<f32> {
    let rows = mat4x4(
        features[gradients_at.x + c],
        features[gradients_at.y + c],
        features[gradients_at.z + c],
        features[gradients_at.w + c],
    );
    var own = transpose(rows);
    for (var e = 0u; e < 4u; e++) { // unroll
        own[e] = select(vec4(0.0), own[e], 4u * c + e < FEATURES);
    }
    return own;
}

// The sum of all gradients of a row.
fn total_gradient() -> vec4<f32> {
    var total = vec4(0.0);
    for (var c = 0u; c < FEATURE_CHUNKS; c++) {
        let own = gradients(c);
        total += (own[0] + own[1]) + (own[2] + own[3]);
    }
    return total;
}
