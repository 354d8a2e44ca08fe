// Softmax attention with an online softmax: o = softmax(scale q kT) v, one pass over the keys, KEYS of them a step.
//
// One workgroup owns 4 * WORKGROUP consecutive rows of one (batch, kv head) and one range of the keys; the rows are the
// queries of the heads that share the kv head, head after head.
// One invocation owns four rows. A vec4 holds one number for each of them; a mat4x4 holds four dims of them, a dim a
// column. Where q and o stay meanwhile, when o is rescaled, and how the invocations come by k and v, are other files'
// matters. All control flow is uniform in the workgroup.
// Workgroup memory: none. Features: none; subgroups where files are appended that say so by their names.
// Source: Dao, "FlashAttention-2", 2023, algorithm 1.
const WORKGROUP: u32 = 8u;
const HEAD_DIM: u32 = 64u;
const V_DIM: u32 = 64u;
const KEYS: u32 = 8u; // of a step
const SPAN: u32 = 1u; // chunks of four dims that are held at a time
const UNROLL: bool = false; // the loops over chunks, so that q and o are registers
const LOG_N: bool = false; // the scale depends on the row's number of visible keys
const SOFTCAP: bool = false;
const ENTROPY: bool = false;
const ROW_MASK: bool = false; // there is a bias or a mask: every step may hide a key from a row
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const V_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const HEAD_SPANS: u32 = (HEAD_CHUNKS + SPAN - 1u) / SPAN;
const V_SPANS: u32 = (V_CHUNKS + SPAN - 1u) / SPAN;
// The score of a key that a row does not see, and where its maximum starts: below every score.
const HIDDEN: f32 = 1.25 * LOWEST;
const_assert HEAD_DIM >= 1u && V_DIM >= 1u;

// The four rows of this invocation.
var<private> rows: Rows;
var<private> count: u32; // of them that there are; the others repeat the tile's last
var<private> row_max: vec4<f32>; // of the scores; see follow_max
var<private> sum: vec4<f32>; // of exp(score - row_max)
var<private> weighted: vec4<f32>; // sum of exp(score - row_max) * (score - row_max), for the entropy
var<private> lane: u32; // the invocation's index in the workgroup

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
    let split = workgroup % params.splits;
    let tiles = workgroup / params.splits;
    let tile = tile_of(tiles / params.row_tiles, tiles % params.row_tiles, 4u * WORKGROUP);
    let k_base = params.k_start + tile.batch * params.k_batch + tile.kv_head * params.k_head;
    let v_base = params.v_start + tile.batch * params.v_batch + tile.kv_head * params.v_head;
    lane = invocation;
    rows = rows_of(tile, tile.first + 4u * lane);
    count = min(max(tile.last + 1u, tile.first + 4u * lane) - (tile.first + 4u * lane), 4u);

    // Start from the empty softmax.
    start_block(split, row_scales(rows));
    row_max = vec4(HIDDEN);
    sum = vec4(0.0);
    weighted = vec4(0.0);

    take_steps(walk_of(tile, split * params.split_keys, (split + 1u) * params.split_keys), k_base, v_base);

    write_rows(split);
}

fn write_rows(split: u32) {
    for (var c = 0u; c < V_CHUNKS; c++) { // unroll if UNROLL
        let o4 = transpose(o_chunk(c));
        for (var r = 0u; r < 4u; r++) { // unroll
            if (r < count) {
                finish_o(rows, r, split, c, o4[r], sum[r]);
            }
        }
    }
    for (var r = 0u; r < 4u; r++) { // unroll
        if (r < count) {
            finish_row(rows, r, split, row_max[r], sum[r], weighted[r]);
        }
    }
}

// Each row's numbers times its own factor.
fn by_row(dims: mat4x4<f32>, factors: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(dims[0] * factors, dims[1] * factors, dims[2] * factors, dims[3] * factors);
}

// Four dims of four rows of q, scaled, a dim a column.
fn scaled_queries(scale: vec4<f32>, c: u32) -> mat4x4<f32> {
    let base = q_base(rows);
    let dims = transpose(mat4x4(load_q(base.x, c), load_q(base.y, c), load_q(base.z, c), load_q(base.w, c)));
    return by_row(dims, scale);
}

fn key_chunk(base: u32, c: u32) -> vec4<f32> {
    return load_k(base, c);
}

// Of SPAN chunks of k or v from some chunk on, chunk h of the step's key i is at KEYS * h + i.
alias Held = array<vec4<f32>, KEYS * SPAN>;

// KEYS keys from j on, none past `last`. `edge`: some row does not see some of them.
fn step(j: u32, last: u32, edge: bool, k_base: u32, v_base: u32) {
    // Scores: scale * q . k.
    var s: array<vec4<f32>, KEYS>;
    for (var b = 0u; b < HEAD_SPANS; b++) { // unroll if UNROLL
        let keys = hold_keys(k_base, j, last, b * SPAN);
        for (var h = 0u; h < SPAN; h++) { // unroll
            if (b * SPAN + h < HEAD_CHUNKS) {
                let q4 = q_chunk(b * SPAN + h);
                for (var x = 0u; x < 4u; x++) { // unroll
                    for (var i = 0u; i < KEYS; i++) { // unroll
                        s[i] = fma(q4[x], vec4(keys[KEYS * h + i][x]), s[i]);
                    }
                }
            }
        }
    }

    // Softcap, bias, and which of the keys each row sees.
    var see: array<vec4<bool>, KEYS>;
    for (var i = 0u; i < KEYS; i++) { // unroll
        if (SOFTCAP) {
            s[i] = softcap(s[i]);
        }
        if (edge) {
            let scored = bias_and_mask(rows, s[i], j + i);
            s[i] = scored.s;
            see[i] = scored.see;
        }
    }

    // The maximum may have grown; shrink is what o is still to be multiplied by.
    var new_max = row_max;
    for (var i = 0u; i < KEYS; i++) { // unroll
        new_max = max(new_max, s[i]);
    }
    let shrink = follow_max(new_max);

    // Weights; exactly 0 where a row does not see the key.
    var p: array<vec4<f32>, KEYS>;
    for (var i = 0u; i < KEYS; i++) { // unroll
        let below = s[i] - row_max;
        p[i] = exp(below);
        if (edge) {
            p[i] = select(vec4(0.0), p[i], see[i]);
        }
        sum += p[i];
        if (ENTROPY) {
            weighted += p[i] * below;
        }
    }

    // o = shrink * o + weights v.
    for (var b = 0u; b < V_SPANS; b++) { // unroll if UNROLL
        let values = hold_values(v_base, j, last, b * SPAN);
        for (var h = 0u; h < SPAN; h++) { // unroll
            if (b * SPAN + h < V_CHUNKS) {
                var o4 = o_chunk(b * SPAN + h);
                for (var x = 0u; x < 4u; x++) { // unroll
                    var dim = o4[x] * shrink;
                    for (var i = 0u; i < KEYS; i++) { // unroll
                        let added = fma(p[i], vec4(values[KEYS * h + i][x]), dim);
                        if (edge) { // what a row does not see may be NaN: 0 * NaN would leak
                            dim = select(dim, added, see[i]);
                        } else {
                            dim = added;
                        }
                    }
                    o4[x] = dim;
                }
                set_o_chunk(b * SPAN + h, o4);
            }
        }
    }
}

// Makes the weights relative to another maximum. A row that keeps its own keeps every bit.
fn raise_max(new_max: vec4<f32>) -> vec4<f32> {
    let step_down = row_max - new_max;
    let shrink = select(exp(step_down), vec4(1.0), step_down == vec4(0.0));
    row_max = new_max;
    sum *= shrink; // before the product with step_down, which might overflow
    weighted = shrink * weighted + step_down * sum;
    return shrink;
}
