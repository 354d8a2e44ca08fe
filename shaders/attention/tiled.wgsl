// Softmax attention with an online softmax, tiled: o = softmax(scale q kT) v, one pass over the keys, KEYS of them a step.
//
// One workgroup owns ROWS consecutive rows of one (batch, kv head) and one range of the keys; the rows are the queries of the
// heads that share the kv head, head after head. Its WIDTH x HEIGHT invocations lie in a grid: along HEIGHT each owns GROUPS
// groups of four rows; along WIDTH it owns four keys of the scores, and COLUMNS chunks of four dims of o. All of that stays in
// registers, a vec4 of o being four dims of a row, and every other vec4 a number of each row of a group.
// Both products take their factors from workgroup memory, SLAB dims or keys at a time:
//   scores: left = q, a row group a vec4, right = k, four keys a vec4;   o: left = the weights, right = v, four dims a vec4.
// Scores are in units of log2, so that their exponential is exp2.
// Workgroup memory: 16 * (max(SLAB, WIDTH) * ROW_GROUPS + SLAB * max(WIDTH, V_CHUNKS)) bytes, at most 16 KiB. Features: none.
// Source: Dao, "FlashAttention-2", 2023, algorithm 1.
const WIDTH: u32 = 16u;
const HEIGHT: u32 = 16u;
const GROUPS: u32 = 2u;
const COLUMNS: u32 = 1u;
const SLAB: u32 = 16u;
const HEAD_DIM: u32 = 64u;
const V_DIM: u32 = 64u;
const LOG_N: bool = false; // the scale depends on the row's number of visible keys
const SOFTCAP: bool = false;
const ENTROPY: bool = false;
const ROW_MASK: bool = false; // there is a bias or a mask: every step may hide a key from a row
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const WORKGROUP: u32 = WIDTH * HEIGHT;
const ROW_GROUPS: u32 = GROUPS * HEIGHT;
const ROWS: u32 = 4u * ROW_GROUPS;
const KEYS: u32 = 4u * WIDTH; // of a step
const SLAB_CHUNKS: u32 = SLAB / 4u;
const HEAD_CHUNKS: u32 = (HEAD_DIM + 3u) / 4u;
const V_CHUNKS: u32 = (V_DIM + 3u) / 4u;
const HEAD_SLABS: u32 = (HEAD_DIM + SLAB - 1u) / SLAB;
const LOG2_E: f32 = 1.4426950408889634;
const LN_2: f32 = 0.6931471805599453;
const_assert KEYS % SLAB == 0u && SLAB_CHUNKS * GROUPS <= WIDTH && COLUMNS * WIDTH >= V_CHUNKS;

var<workgroup> left: array<vec4<f32>, max(SLAB, WIDTH) * ROW_GROUPS>; // [dim or key of the slab, row group]
var<workgroup> right: array<vec4<f32>, SLAB * max(WIDTH, V_CHUNKS)>; // [dim, four keys], or [key, chunk of v]

var<private> invocation: u32;
var<private> x: u32; // place along WIDTH
var<private> y: u32; // place along HEIGHT
var<private> rows: array<Rows, GROUPS>;
var<private> scale: array<vec4<f32>, GROUPS>;
var<private> row_max: array<vec4<f32>, GROUPS>;
var<private> sum: array<vec4<f32>, GROUPS>; // of this invocation's exp2(score - row_max)
var<private> weighted: array<vec4<f32>, GROUPS>; // of exp2(score - row_max) * (score - row_max), for the entropy
var<private> o_tile: array<array<vec4<f32>, COLUMNS>, 4u * GROUPS>; // undivided
var<private> q_at: vec4<u32>; // where the four rows of q start that this invocation brings to workgroup memory

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
    let split = workgroup % params.splits;
    let tiles = workgroup / params.splits;
    let tile = tile_of(tiles / params.row_tiles, tiles % params.row_tiles, ROWS);
    let k_base = params.k_start + tile.batch * params.k_batch + tile.kv_head * params.k_head;
    let v_base = params.v_start + tile.batch * params.v_batch + tile.kv_head * params.v_head;
    invocation = local;
    x = local % WIDTH;
    y = local / WIDTH;
    for (var g = 0u; g < GROUPS; g++) { // unroll
        rows[g] = rows_of(tile, tile.first + 4u * (y * GROUPS + g));
        scale[g] = row_scales(rows[g]) * select(LOG2_E, 1.0, SOFTCAP || ROW_MASK);
        row_max[g] = vec4(LOWEST * LOG2_E);
    }
    q_at = q_base(rows_of(tile, tile.first + 4u * (local / SLAB_CHUNKS)));

    take_steps(walk_of(tile, split), k_base, v_base);

    write_rows(tile, split);
}

// KEYS keys from j on, none past `last`. `edge`: some row does not see some of them.
fn step(j: u32, last: u32, edge: bool, k_base: u32, v_base: u32) {
    // Scores of this invocation's four keys.
    var s: array<array<vec4<f32>, GROUPS>, 4>;
    for (var slab = 0u; slab < HEAD_SLABS; slab++) {
        workgroupBarrier();
        bring_q(slab);
        bring_k(slab, j, last, k_base);
        workgroupBarrier();
        for (var d = 0u; d < SLAB; d++) {
            let key = right[d * WIDTH + x];
            for (var g = 0u; g < GROUPS; g++) { // unroll
                let query = left[d * ROW_GROUPS + y * GROUPS + g];
                for (var i = 0u; i < 4u; i++) { // unroll
                    s[i][g] = fma(query, vec4(key[i]), s[i][g]);
                }
            }
        }
    }

    // Scale, softcap, bias, and which of the keys each row sees; the largest score.
    let own_keys = j + 4u * x;
    var see: array<array<vec4<bool>, GROUPS>, 4>;
    var largest: array<vec4<f32>, GROUPS>;
    for (var g = 0u; g < GROUPS; g++) { // unroll
        largest[g] = row_max[g];
        for (var i = 0u; i < 4u; i++) { // unroll
            s[i][g] *= scale[g];
            if (SOFTCAP) {
                s[i][g] = softcap(s[i][g]);
            }
            if (edge) {
                let scored = bias_and_mask(rows[g], s[i][g], own_keys + i);
                s[i][g] = scored.s;
                see[i][g] = scored.see;
            }
            if (SOFTCAP || ROW_MASK) {
                s[i][g] *= LOG2_E;
            }
            largest[g] = max(largest[g], s[i][g]);
        }
    }

    // The row's new maximum is that of all invocations along WIDTH.
    workgroupBarrier();
    for (var g = 0u; g < GROUPS; g++) { // unroll
        left[x * ROW_GROUPS + y * GROUPS + g] = largest[g];
    }
    workgroupBarrier();
    for (var g = 0u; g < GROUPS; g++) { // unroll
        var new_max = largest[g];
        for (var other = 0u; other < WIDTH; other++) {
            new_max = max(new_max, left[other * ROW_GROUPS + y * GROUPS + g]);
        }
        // By how much what was summed so far shrinks; the weights, exactly 0 where a row does not see the key.
        let step_down = row_max[g] - new_max;
        let shrink = exp2(step_down);
        row_max[g] = new_max;
        weighted[g] = shrink * (weighted[g] + step_down * sum[g]);
        sum[g] *= shrink;
        for (var r = 0u; r < 4u; r++) { // unroll
            for (var c = 0u; c < COLUMNS; c++) { // unroll
                o_tile[4u * g + r][c] *= shrink[r];
            }
        }
        for (var i = 0u; i < 4u; i++) { // unroll
            let below = s[i][g] - new_max;
            s[i][g] = exp2(below);
            if (edge) {
                s[i][g] = select(vec4(0.0), s[i][g], see[i][g]);
            }
            sum[g] += s[i][g];
            if (ENTROPY) {
                weighted[g] += s[i][g] * below;
            }
        }
    }

    // o += weights v.
    for (var slab = 0u; slab < KEYS / SLAB; slab++) {
        workgroupBarrier();
        if (x / SLAB_CHUNKS == slab) {
            for (var g = 0u; g < GROUPS; g++) { // unroll
                for (var i = 0u; i < 4u; i++) { // unroll
                    left[(4u * (x % SLAB_CHUNKS) + i) * ROW_GROUPS + y * GROUPS + g] = s[i][g];
                }
            }
        }
        bring_v(j + slab * SLAB, last, v_base);
        workgroupBarrier();
        for (var i = 0u; i < SLAB; i++) {
            var weight: array<vec4<f32>, GROUPS>;
            for (var g = 0u; g < GROUPS; g++) { // unroll
                weight[g] = left[i * ROW_GROUPS + y * GROUPS + g];
            }
            for (var c = 0u; c < COLUMNS; c++) { // unroll
                let value = right[i * V_CHUNKS + min(x + c * WIDTH, V_CHUNKS - 1u)];
                for (var g = 0u; g < GROUPS; g++) { // unroll
                    for (var r = 0u; r < 4u; r++) { // unroll
                        let own = seen(value, weight[g][r], edge);
                        o_tile[4u * g + r][c] = fma(vec4(weight[g][r]), own, o_tile[4u * g + r][c]);
                    }
                }
            }
        }
    }
}

// A value that a row may not see may be NaN, and 0 * NaN would leak.
fn seen(value: vec4<f32>, weight: f32, edge: bool) -> vec4<f32> {
    if (edge) {
        return select(vec4(0.0), value, weight != 0.0);
    }
    return value;
}

// To workgroup memory: SLAB dims of q, four rows to an invocation. Dims past the last are 0.
fn bring_q(slab: u32) {
    if (invocation < SLAB_CHUNKS * ROW_GROUPS) {
        let c = invocation % SLAB_CHUNKS;
        let chunk = SLAB_CHUNKS * slab + c;
        var dims = mat4x4<f32>();
        if (chunk < HEAD_CHUNKS) {
            dims = transpose(mat4x4(load_q(q_at.x, chunk), load_q(q_at.y, chunk), load_q(q_at.z, chunk), load_q(q_at.w, chunk)));
        }
        for (var d = 0u; d < 4u; d++) { // unroll
            left[(4u * c + d) * ROW_GROUPS + invocation / SLAB_CHUNKS] = dims[d];
        }
    }
}

// SLAB dims of the keys from position j on, none past `last`, four keys to an invocation.
fn bring_k(slab: u32, j: u32, last: u32, k_base: u32) {
    for (var i = invocation; i < SLAB_CHUNKS * WIDTH; i += WORKGROUP) {
        let c = i % SLAB_CHUNKS;
        let chunk = SLAB_CHUNKS * slab + c;
        var dims = mat4x4<f32>();
        if (chunk < HEAD_CHUNKS) {
            let key = min(vec4(j + 4u * (i / SLAB_CHUNKS)) + vec4(0u, 1u, 2u, 3u), vec4(last));
            let at = k_base + key * params.k_row;
            dims = transpose(mat4x4(load_k(at.x, chunk), load_k(at.y, chunk), load_k(at.z, chunk), load_k(at.w, chunk)));
        }
        for (var d = 0u; d < 4u; d++) { // unroll
            right[(4u * c + d) * WIDTH + i / SLAB_CHUNKS] = dims[d];
        }
    }
}

// SLAB values from position j on, none past `last`.
fn bring_v(j: u32, last: u32, v_base: u32) {
    for (var i = invocation; i < SLAB * V_CHUNKS; i += WORKGROUP) {
        right[i] = load_v(v_base + min(j + i / V_CHUNKS, last) * params.v_row, i % V_CHUNKS);
    }
}

// The tile's results; what the invocations along WIDTH have summed each for itself is added up.
fn write_rows(tile: Tile, split: u32) {
    for (var g = 0u; g < GROUPS; g++) { // unroll
        sum[g] = sum_along_width(g, sum[g]);
        if (ENTROPY) {
            weighted[g] = sum_along_width(g, weighted[g]);
        }
        for (var r = 0u; r < 4u; r++) { // unroll
            if (tile.first + 4u * (y * GROUPS + g) + r <= tile.last) {
                for (var c = 0u; c < COLUMNS; c++) { // unroll
                    if (x + c * WIDTH < V_CHUNKS) {
                        finish_o(rows[g], r, split, x + c * WIDTH, o_tile[4u * g + r][c], sum[g][r]);
                    }
                }
                if (x == 0u) {
                    finish_row(rows[g], r, split, row_max[g][r] * LN_2, sum[g][r], weighted[g][r] * LN_2);
                }
            }
        }
    }
}

fn sum_along_width(g: u32, own: vec4<f32>) -> vec4<f32> {
    workgroupBarrier();
    left[x * ROW_GROUPS + y * GROUPS + g] = own;
    workgroupBarrier();
    var all = vec4(0.0);
    for (var other = 0u; other < WIDTH; other++) {
        all += left[other * ROW_GROUPS + y * GROUPS + g];
    }
    return all;
}
