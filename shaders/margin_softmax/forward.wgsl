// The logits of margin softmax in tiles of rows and classes, and of each row what an online softmax needs of them.
//
// One workgroup owns TILE_M rows and walks a range of the classes of one tensor, TILE_N at a time. The product of a tile is that of
// matmul/tiles.wgsl, a being the features and b the class weights; whoever carries a block also adds up its squares, which makes
// the norms. The tile's logits are then summed by row, through the same workgroup memory, into a state that invocation i has of
// row i. States lie in the workspace between dispatches, one for each row and split, so that ranges and tensors follow on another.
// The target's logit is in no sum: its cosine is written to the workspace, by whoever meets it.
// Workgroup memory: 16 KiB. Features: none.
// Source: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018, section 3.1.
const ROW_GROUPS: u32 = 16u; // invocations along a column of the tile
const COLUMN_GROUPS: u32 = 16u; // and along a row
const ROW_BLOCKS: u32 = 2u; // of an invocation
const COLUMN_BLOCKS: u32 = 2u;
const DEPTH: u32 = 16u; // dims of a step
const NORMALIZE: bool = true;
const METRIC: bool = false; // logits are distances
const ENTROPY: bool = false;

const WORKGROUP: u32 = ROW_GROUPS * COLUMN_GROUPS;
const A_CHUNKS: u32 = ROW_GROUPS * ROW_BLOCKS; // of four rows
const B_CHUNKS: u32 = COLUMN_GROUPS * COLUMN_BLOCKS; // of four classes
const TILE_M: u32 = 4u * A_CHUNKS;
const TILE_N: u32 = 4u * B_CHUNKS;
const DEPTH_BLOCKS: u32 = DEPTH / 4u;
const A_BLOCKS: u32 = A_CHUNKS * DEPTH_BLOCKS;
const B_BLOCKS: u32 = B_CHUNKS * DEPTH_BLOCKS;
const B_FIRST: u32 = DEPTH * A_CHUNKS; // where b begins in workgroup memory
const PHASE_ROWS: u32 = 4u * ROW_GROUPS; // that are summed at a time
const MEMORY: u32 = max(DEPTH * (A_CHUNKS + B_CHUNKS), PHASE_ROWS * COLUMN_GROUPS);
const LOWEST: f32 = -1.0e38; // no logit is below; the difference of two such is finite
const_assert A_BLOCKS + B_BLOCKS <= WORKGROUP && TILE_M <= WORKGROUP;
const_assert 8u % DEPTH_BLOCKS == 0u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    m: u32, // rows
    n: u32, // classes of the tensor
    k: u32, // dims
    row_tiles: u32, // ceil(m / TILE_M)
    range: u32, // classes of a split
    first_class: u32, // of the tensor, in this dispatch
    before: u32, // classes of the tensors before
    resume: u32, // 1 where there is a state already
    a_start: u32, // starts and strides in elements
    a_m: u32,
    a_k: u32,
    b_start: u32,
    b_n: u32,
    b_k: u32,
    labels_start: u32,
    labels_stride: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> labels: array<u32>; // [rows]
@group(0) @binding(4) var<storage, read_write> states: array<vec4<f32>>; // [splits, rows]: largest logit, sum, weighted, probe
@group(0) @binding(5) var<storage, read_write> targets: array<f32>; // [rows]: the target's cosine

var<workgroup> memory: array<vec4<f32>, MEMORY>;

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
    let split = workgroup / params.row_tiles;
    let first_row = workgroup % params.row_tiles * TILE_M;
    let begin = params.first_class + split * params.range;
    let end = min(begin + params.range, params.n);
    let group_row = invocation / COLUMN_GROUPS;
    let group_column = invocation % COLUMN_GROUPS;

    // The block that this invocation carries in each step; neighbours carry what lies side by side in memory.
    let carries_a = invocation < A_BLOCKS;
    let carries_b = !carries_a && invocation < A_BLOCKS + B_BLOCKS;
    let index = select(invocation - A_BLOCKS, invocation, carries_a);
    let chunk = index / DEPTH_BLOCKS;
    let depth_block = index % DEPTH_BLOCKS;
    let chunks = select(B_CHUNKS, A_CHUNKS, carries_a);
    let memory_base = select(B_FIRST, 0u, carries_a);

    // The state of row `invocation`.
    let own_row = first_row + invocation;
    let owns = invocation < TILE_M && own_row < params.m;
    var state = vec4(LOWEST, 0.0, 0.0, 0.0);
    if (params.resume == 1u && owns) {
        state = states[split * params.m + own_row];
    }
    var best = resumed_best(split, own_row, owns);

    for (var first = begin; first < end; first += TILE_N) {
        // The products of the tile, as in matmul/tiles.wgsl.
        var squares = vec4<f32>(); // of the four rows or classes of this invocation's blocks
        var block: mat4x4<f32>;
        var acc: array<array<vec4<f32>, COLUMN_BLOCKS>, 4u * ROW_BLOCKS>; // four classes of a row
        for (var k = 0u; k < params.k + DEPTH; k += DEPTH) {
            workgroupBarrier();
            if (k > 0u && (carries_a || carries_b)) {
                for (var d = 0u; d < 4u; d++) { // unroll
                    memory[memory_base + (4u * depth_block + d) * chunks + place(chunk, depth_block, chunks)] = block[d];
                    if (NORMALIZE) {
                        squares = fma(block[d], block[d], squares);
                    }
                }
            }
            workgroupBarrier();
            if (k < params.k) {
                if (carries_a) {
                    block = a_block(params.a_start, first_row + 4u * chunk, k + 4u * depth_block);
                } else if (carries_b) {
                    block = b_block(params.b_start, k + 4u * depth_block, first + 4u * chunk);
                }
            }
            if (k > 0u) {
                for (var d = 0u; d < DEPTH; d++) { // unroll
                    var b4: array<vec4<f32>, COLUMN_BLOCKS>;
                    for (var y = 0u; y < COLUMN_BLOCKS; y++) { // unroll
                        b4[y] = memory[B_FIRST + d * B_CHUNKS + place(group_column + y * COLUMN_GROUPS, d / 4u, B_CHUNKS)];
                    }
                    for (var x = 0u; x < ROW_BLOCKS; x++) { // unroll
                        let a4 = memory[d * A_CHUNKS + place(group_row + x * ROW_GROUPS, d / 4u, A_CHUNKS)];
                        for (var r = 0u; r < 4u; r++) { // unroll
                            for (var y = 0u; y < COLUMN_BLOCKS; y++) { // unroll
                                acc[4u * x + r][y] = fma(vec4(a4[r]), b4[y], acc[4u * x + r][y]);
                            }
                        }
                    }
                }
            }
        }

        // Divided by the norms.
        if (NORMALIZE) {
            workgroupBarrier();
            if (carries_a || carries_b) {
                memory[memory_base + depth_block * chunks + chunk] = squares;
            }
            workgroupBarrier();
            for (var y = 0u; y < COLUMN_BLOCKS; y++) { // unroll
                let of_classes = inverse_norms(B_FIRST + group_column + y * COLUMN_GROUPS, B_CHUNKS);
                for (var x = 0u; x < ROW_BLOCKS; x++) { // unroll
                    let of_rows = inverse_norms(group_row + x * ROW_GROUPS, A_CHUNKS);
                    for (var r = 0u; r < 4u; r++) { // unroll
                        acc[4u * x + r][y] = acc[4u * x + r][y] * of_rows[r] * of_classes;
                    }
                }
            }
        }

        for (var x = 0u; x < ROW_BLOCKS; x++) { // unroll
            // Of each row, what this invocation has of it.
            workgroupBarrier();
            for (var r = 0u; r < 4u; r++) { // unroll
                let row = first_row + 4u * (group_row + x * ROW_GROUPS) + r;
                let label = labels[params.labels_start + min(row, params.m - 1u) * params.labels_stride];
                var logits: array<vec4<f32>, COLUMN_BLOCKS>;
                var part = vec4(LOWEST, 0.0, 0.0, 0.0);
                for (var y = 0u; y < COLUMN_BLOCKS; y++) { // unroll
                    let column = first + 4u * (group_column + y * COLUMN_GROUPS);
                    let columns = vec4(column) + vec4(0u, 1u, 2u, 3u);
                    let cosines = acc[4u * x + r][y];
                    let inside = columns < vec4(end);
                    let probes = select(vec4(0.0), cosines, inside);
                    part.w += probes.x + probes.y + probes.z + probes.w;
                    let others = inside & (columns + vec4(params.before) != vec4(label));
                    logits[y] = select(vec4(LOWEST), params.scale * other_logits(cosines), others);
                    part.x = max(part.x, max(max(logits[y].x, logits[y].y), max(logits[y].z, logits[y].w)));
                    let at = label - params.before - column; // past 3 for any label but one of these
                    if (at < 4u && column + at < end && row < params.m) {
                        targets[row] = cosines[at];
                    }
                }
                for (var y = 0u; y < COLUMN_BLOCKS; y++) { // unroll
                    let below = logits[y] - vec4(part.x);
                    let terms = select(exp(below), vec4(0.0), logits[y] == vec4(LOWEST));
                    part.y += terms.x + terms.y + terms.z + terms.w;
                    if (ENTROPY) {
                        part.z += dot(terms, below);
                    }
                }
                memory[part_place(group_column, 4u * group_row + r)] = part;
            }
            workgroupBarrier();

            // Of all invocations along the row, to the row's state.
            if (owns && invocation / PHASE_ROWS == x) {
                let row = invocation % PHASE_ROWS;
                var largest = state.x;
                for (var column = 0u; column < COLUMN_GROUPS; column++) {
                    largest = max(largest, memory[part_place(column, row)].x);
                }
                state = vec4(largest, 0.0, 0.0, 0.0) + rebased(state, largest);
                for (var column = 0u; column < COLUMN_GROUPS; column++) {
                    state += rebased(memory[part_place(column, row)], largest);
                }
            }
            if (PREDICTED) {
                // The same of the largest cosine and its class.
                workgroupBarrier();
                for (var r = 0u; r < 4u; r++) { // unroll
                    var own = vec2(LOWEST, 0.0); // a cosine, and its place in the tile
                    for (var y = 0u; y < COLUMN_BLOCKS; y++) { // unroll
                        for (var i = 0u; i < 4u; i++) { // unroll
                            let column = 4u * (group_column + y * COLUMN_GROUPS) + i;
                            if (first + column < end && acc[4u * x + r][y][i] > own.x) {
                                own = vec2(acc[4u * x + r][y][i], f32(column));
                            }
                        }
                    }
                    memory[part_place(group_column, 4u * group_row + r)] = vec4(own, 0.0, 0.0);
                }
                workgroupBarrier();
                if (owns && invocation / PHASE_ROWS == x) {
                    var here = vec2(LOWEST, 0.0);
                    for (var column = 0u; column < COLUMN_GROUPS; column++) {
                        let part = memory[part_place(column, invocation % PHASE_ROWS)].xy;
                        if (part.x > here.x || (part.x == here.x && part.y < here.y)) {
                            here = part;
                        }
                    }
                    // Classes come in order: of equals the first stays.
                    if (here.x > best.cosine) {
                        best = Best(here.x, params.before + first + u32(here.y));
                    }
                }
            }
        }
    }

    if (owns) {
        states[split * params.m + own_row] = state;
        keep_best(split, own_row, best);
    }
}

// Where a chunk stands among those of the same k, as in matmul/tiles.wgsl.
fn place(chunk: u32, depth_block: u32, chunks: u32) -> u32 {
    return chunk ^ (depth_block * (8u / DEPTH_BLOCKS) % chunks);
}

// Where an invocation's part of a row stands, so that neither neighbours along the row nor rows meet in a bank.
fn part_place(column: u32, row: u32) -> u32 {
    return column * PHASE_ROWS + (row + column) % PHASE_ROWS;
}

// 1 over the norms of four rows or classes, 0 where they are 0; NaN stays.
fn inverse_norms(first: u32, chunks: u32) -> vec4<f32> {
    var squares = vec4<f32>();
    for (var i = 0u; i < DEPTH_BLOCKS; i++) { // unroll
        squares += memory[first + i * chunks];
    }
    let zero = squares == vec4(0.0);
    return select(inverseSqrt(select(squares, vec4(1.0), zero)), vec4(0.0), zero);
}

fn other_logits(cosines: vec4<f32>) -> vec4<f32> {
    if (METRIC) {
        let squares = vec4(1.0) - cosines;
        return -sqrt(select(squares, vec4(0.0), squares < vec4(0.0)));
    }
    return cosines;
}

// What a state adds to one whose largest logit is `largest`: 0 to that itself.
fn rebased(state: vec4<f32>, largest: f32) -> vec4<f32> {
    let down = state.x - largest;
    let factor = exp(down);
    let sum = factor * state.y;
    return vec4(0.0, sum, factor * state.z + down * sum, state.w);
}
