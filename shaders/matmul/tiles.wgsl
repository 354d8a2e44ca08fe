// Matrix product c = activation(a b + bias), blocked in registers and in workgroup memory.
//
// One workgroup owns a tile of TILE_M rows and TILE_N columns of one matrix and walks a range of k, DEPTH at a time. One invocation
// owns ROW_BLOCKS x COLUMN_BLOCKS blocks of 4 x 4 in it, and carries one block of 4 x 4 of a or of b into workgroup memory.
// There a lies transposed, so that both are read as vec4 along the tile's edge; chunks of four are permuted by their k
// (`place`), so that neither reading nor writing meets a bank twice. The next step's blocks are fetched before a step's
// products, which hides their latency. Barriers depend on the workgroup alone.
// Workgroup memory: 4 * DEPTH * (TILE_M + TILE_N) bytes. Features: none.
// Source: Volkov and Demmel, "Benchmarking GPUs to Tune Dense Linear Algebra", 2008, section 5.
const ROW_GROUPS: u32 = 16u; // invocations along a column of the tile
const COLUMN_GROUPS: u32 = 16u; // and along a row
const ROW_BLOCKS: u32 = 2u; // of an invocation
const COLUMN_BLOCKS: u32 = 2u;
const DEPTH: u32 = 16u; // k of a step
const A_TRANSPOSED: bool = false; // neighbours along m, not k, are neighbours in memory
const B_TRANSPOSED: bool = false; // along k, not n

const WORKGROUP: u32 = ROW_GROUPS * COLUMN_GROUPS;
const A_CHUNKS: u32 = ROW_GROUPS * ROW_BLOCKS; // of four rows
const B_CHUNKS: u32 = COLUMN_GROUPS * COLUMN_BLOCKS; // of four columns
const TILE_M: u32 = 4u * A_CHUNKS;
const TILE_N: u32 = 4u * B_CHUNKS;
const DEPTH_BLOCKS: u32 = DEPTH / 4u;
const A_BLOCKS: u32 = A_CHUNKS * DEPTH_BLOCKS;
const B_BLOCKS: u32 = B_CHUNKS * DEPTH_BLOCKS;
const_assert A_BLOCKS + B_BLOCKS <= WORKGROUP;
const_assert 8u % DEPTH_BLOCKS == 0u;

var<workgroup> a_tile: array<array<vec4<f32>, A_CHUNKS>, DEPTH>; // four rows at one k
var<workgroup> b_tile: array<array<vec4<f32>, B_CHUNKS>, DEPTH>; // four columns at one k

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
    let slice = workgroup / params.row_tiles / params.column_tiles; // a matrix in a range of k
    let batch = slice % params.matrices / params.heads;
    let head = slice % params.heads;
    let first_k = slice / params.matrices * params.range_k;
    let end_k = min(first_k + params.range_k, params.k);
    let first_row = workgroup % params.row_tiles * TILE_M;
    let first_column = workgroup / params.row_tiles % params.column_tiles * TILE_N;
    let group_row = invocation / COLUMN_GROUPS;
    let group_column = invocation % COLUMN_GROUPS;

    // The block that this invocation carries in each step.
    let carries_a = invocation < A_BLOCKS;
    let carries_b = !carries_a && invocation < A_BLOCKS + B_BLOCKS;
    let index = select(invocation - A_BLOCKS, invocation, carries_a);
    let chunks = select(B_CHUNKS, A_CHUNKS, carries_a);
    // Neighbours carry what lies side by side in memory.
    let along_k = select(B_TRANSPOSED, !A_TRANSPOSED, carries_a);
    let chunk = select(index % chunks, index / DEPTH_BLOCKS, along_k);
    let depth_block = select(index / chunks, index % DEPTH_BLOCKS, along_k);
    let a_base = params.a_start + batch * params.a_batch + head * params.a_head;
    let b_base = params.b_start + batch * params.b_batch + head * params.b_head;

    var block: mat4x4<f32>;
    var acc: array<array<vec4<f32>, COLUMN_BLOCKS>, 4u * ROW_BLOCKS>; // four columns of a row
    for (var k = first_k; k < end_k + DEPTH; k += DEPTH) {
        // The blocks fetched a step ago go to workgroup memory, once all have done with what is there.
        if (k > first_k) {
            workgroupBarrier();
            if (carries_a) {
                for (var d = 0u; d < 4u; d++) { // unroll
                    a_tile[4u * depth_block + d][place(chunk, depth_block, A_CHUNKS)] = block[d];
                }
            } else if (carries_b) {
                for (var d = 0u; d < 4u; d++) { // unroll
                    b_tile[4u * depth_block + d][place(chunk, depth_block, B_CHUNKS)] = block[d];
                }
            }
            workgroupBarrier();
        }

        // Fetch the next; beyond the last k they are zero.
        if (k < end_k) {
            if (carries_a) {
                block = a_block(a_base, first_row + 4u * chunk, k + 4u * depth_block);
            } else if (carries_b) {
                block = b_block(b_base, k + 4u * depth_block, first_column + 4u * chunk);
            }
        }

        // Add the products of what is in workgroup memory.
        if (k > first_k) {
            for (var d = 0u; d < DEPTH; d++) { // unroll
                var b4: array<vec4<f32>, COLUMN_BLOCKS>;
                for (var y = 0u; y < COLUMN_BLOCKS; y++) { // unroll
                    b4[y] = b_tile[d][place(group_column + y * COLUMN_GROUPS, d / 4u, B_CHUNKS)];
                }
                for (var x = 0u; x < ROW_BLOCKS; x++) { // unroll
                    let a4 = a_tile[d][place(group_row + x * ROW_GROUPS, d / 4u, A_CHUNKS)];
                    for (var r = 0u; r < 4u; r++) { // unroll
                        for (var y = 0u; y < COLUMN_BLOCKS; y++) { // unroll
                            acc[4u * x + r][y] = fma(vec4(a4[r]), b4[y], acc[4u * x + r][y]);
                        }
                    }
                }
            }
        }
    }

    for (var x = 0u; x < ROW_BLOCKS; x++) { // unroll
        for (var r = 0u; r < 4u; r++) { // unroll
            for (var y = 0u; y < COLUMN_BLOCKS; y++) { // unroll
                let row = first_row + 4u * (group_row + x * ROW_GROUPS) + r;
                write_sums(slice, row, first_column + 4u * (group_column + y * COLUMN_GROUPS), acc[4u * x + r][y]);
            }
        }
    }
}

// Where a chunk stands among those of the same k: four neighbours along k that carry the same chunk, or all that carry
// different ones, write to different banks, of which eight chunks fill all.
fn place(chunk: u32, depth_block: u32, chunks: u32) -> u32 {
    return chunk ^ (depth_block * (8u / DEPTH_BLOCKS) % chunks);
}
