// The scale of each row for the gradients of attention, where rows have scales of their own, and how many keys each sequence has.
//
// LANES invocations own four rows: of a mask, each counts a part of the keys that it leaves.
// Workgroup memory: 16 * WORKGROUP bytes. Features: none.
// Source: as attention; Dao, "FlashAttention-2", 2023, algorithm 2.
const WORKGROUP: u32 = 64u;
const LANES: u32 = 1u;
const LOG_N: bool = false; // the scale depends on the row's number of visible keys
const SCALES: bool = true; // whether scales are asked for, and not lengths alone
const LENS: bool = false; // whether lengths are

const TILES: u32 = WORKGROUP / LANES;
const_assert WORKGROUP % LANES == 0u;
// What the files of attention ask for.
const KEYS: u32 = 1u;
const ROW_MASK: bool = false;
const SOFTCAP: bool = false;
const HIDDEN: f32 = 1.25 * LOWEST;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    batch: u32,
    q_heads: u32,
    kv_heads: u32,
    group: u32, // query heads per kv head
    q_len: u32, // tokens
    kv_len: u32, // tokens
    rows: u32, // batch * heads * len
    row_tiles: u32, // of the rows of a kv head, of four
    offset: i32, // of the diagonal to the right of j = i, tokens
    align_end: u32, // 1: the diagonal moves by (visible keys - q_len) as well
    left: i32, // keys visible left of the diagonal
    right: i32, // and right of it
    scale: f32, // or its factor, if LOG_N: scale * max(log(max(n, scale_floor)), scale_least)
    scale_floor: u32,
    scale_least: f32,
    softcap: f32,
    q_start: u32,
    q_batch: u32,
    q_head: u32,
    q_row: u32,
    mask_start: u32, // starts and strides in elements
    mask_batch: u32,
    mask_head: u32,
    mask_row: u32,
    row_scale_start: u32,
    row_scale_batch: u32,
    row_scale_head: u32,
    row_scale_row: u32,
    kv_lens_start: u32,
    kv_lens_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [rows], of which the scale is written, and [batch], a length each; see backward_rows.wgsl
@group(0) @binding(13) var<storage, read_write> facts: array<vec4<u32>>;

var<workgroup> counts: array<vec4<u32>, WORKGROUP>;

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
    let tiles = params.batch * params.kv_heads * params.row_tiles;
    let own = workgroup * TILES + invocation / LANES;
    let index = min(own, tiles - 1u); // past the last, it is read and not written
    let lane = invocation % LANES;
    let tile = tile_of(index / params.row_tiles, index % params.row_tiles, 4u);
    let rows = rows_of(tile, tile.first);
    var scales = vec4(0.0);
    if (SCALES && LANES == 1u) {
        scales = row_scales(rows);
    } else if (SCALES) {
        scales = shared_scales(rows, invocation, lane);
    }
    if (lane > 0u || own != index) {
        return;
    }
    if (LENS && tile.kv_head == 0u && tile.first == 0u) {
        facts[params.rows + tile.batch].x = u32(tile.len);
    }
    if (SCALES) {
        for (var r = 0u; r < 4u; r++) { // unroll
            if (tile.first + r <= tile.last) {
                let row = (rows.batch * params.q_heads + rows.head[r]) * params.q_len + rows.row[r];
                facts[row].z = bitcast<u32>(scales[r]);
            }
        }
    }
}

// Of rows whose keys all lanes count, each every LANES-th: rows of two heads may see keys far apart.
fn shared_scales(rows: Rows, invocation: u32, lane: u32) -> vec4<f32> {
    let lo = rows.lo;
    let hi = rows.hi;
    let begin = min(min(lo.x, lo.y), min(lo.z, lo.w));
    let end = max(max(hi.x, hi.y), max(hi.z, hi.w));
    var own = vec4(0u);
    for (var j = begin + i32(lane); j < end; j += i32(LANES)) {
        let see = (vec4(j) >= lo) & (vec4(j) < hi);
        own += select(vec4(0u), vec4(1u), mask_at(rows, vec4(u32(j)), see));
    }
    counts[invocation] = own;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            counts[invocation] += counts[invocation + half];
        }
    }
    let n = max(counts[invocation], vec4(params.scale_floor));
    return params.scale * max(log(vec4<f32>(n)), vec4(params.scale_least));
}
