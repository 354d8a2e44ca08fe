// Matrix product c = activation(a b + bias), blocked in registers and in workgroup memory.
//
// One workgroup owns a tile of TILE_M rows and TILE_N columns of one matrix and walks a range of k, DEPTH at a time. One invocation
// owns ROW_BLOCKS x COLUMN_BLOCKS blocks of 4 x 4 in it, and carries one block of 4 x 4 of a or of b into workgroup memory.
// There a lies transposed, so that both are read as vec4 along the tile's edge. The next step's blocks are fetched before a step's
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
const A_SIDE: u32 = min(A_CHUNKS, 8u); // neighbours that carry different chunks at one k
const B_SIDE: u32 = min(B_CHUNKS, 8u);
const_assert A_CHUNKS % A_SIDE == 0u && B_CHUNKS % B_SIDE == 0u;

// What an index reaches that is known when the kernel is compiled is an axis of its own, so that a compiler finds the bounds and the
// place of the others once for all.
var<workgroup> a_tile: array<array<array<array<vec4<f32>, ROW_GROUPS>, ROW_BLOCKS>, 4>, DEPTH_BLOCKS>; // four rows at one k
var<workgroup> b_tile: array<array<array<array<vec4<f32>, COLUMN_GROUPS>, COLUMN_BLOCKS>, 4>, DEPTH_BLOCKS>; // four columns at one k

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
    // Neighbours carry what lies side by side in memory, but for eight: these carry different chunks at one k, and meet in no bank of
    // workgroup memory, of which eight vec4s fill all.
    let along_k = select(B_TRANSPOSED, !A_TRANSPOSED, carries_a);
    let side = select(B_SIDE, A_SIDE, carries_a);
    let chunk = select(index % chunks, index / side / DEPTH_BLOCKS * side + index % side, along_k);
    let depth_block = select(index / chunks, index / side % DEPTH_BLOCKS, along_k);
    let a_base = params.a_start + batch * params.a_batch + head * params.a_head;
    let b_base = params.b_start + batch * params.b_batch + head * params.b_head;

    // Fetch the first blocks, as they lie: to arrange them is to wait for them. None past the last k is read.
    let row = first_row + 4u * chunk;
    let column = first_column + 4u * chunk;
    let own_k = first_k + 4u * depth_block;
    var at = b_places(b_base, own_k, column);
    var last = b_last(b_base, column);
    if (carries_a) {
        at = a_places(a_base, row, own_k);
        last = a_last(a_base, row);
    }
    var block: mat4x4<f32>;
    if (first_k < end_k) {
        if (carries_a) {
            block = a_load(at, last);
        } else if (carries_b) {
            block = b_load(at, last);
        }
    }

    var acc: array<array<vec4<f32>, COLUMN_BLOCKS>, 4u * ROW_BLOCKS>; // four columns of a row
    for (var k = first_k; k < end_k; k += DEPTH) {
        // What was fetched goes to workgroup memory, once all have done with what is there.
        workgroupBarrier();
        if (carries_a) {
            let own = up_to_last(a_arranged(block), k, depth_block);
            for (var d = 0u; d < 4u; d++) { // unroll
                a_tile[depth_block][d][chunk / ROW_GROUPS][chunk % ROW_GROUPS] = own[d];
            }
        } else if (carries_b) {
            let own = up_to_last(b_arranged(block), k, depth_block);
            for (var d = 0u; d < 4u; d++) { // unroll
                b_tile[depth_block][d][chunk / COLUMN_GROUPS][chunk % COLUMN_GROUPS] = own[d];
            }
        }
        workgroupBarrier();

        // Fetch the next.
        if (k + DEPTH < end_k) {
            if (carries_a) {
                at += a_advance(DEPTH);
                block = a_load(at, last);
            } else if (carries_b) {
                at += b_advance(DEPTH);
                block = b_load(at, last);
            }
        }

        // Add the products of what is in workgroup memory.
        for (var d = 0u; d < DEPTH; d++) { // unroll
            var b4: array<vec4<f32>, COLUMN_BLOCKS>;
            for (var y = 0u; y < COLUMN_BLOCKS; y++) { // unroll
                b4[y] = b_tile[d / 4u][d % 4u][y][group_column];
            }
            for (var x = 0u; x < ROW_BLOCKS; x++) { // unroll
                let a4 = a_tile[d / 4u][d % 4u][x][group_row];
                for (var r = 0u; r < 4u; r++) { // unroll
                    for (var y = 0u; y < COLUMN_BLOCKS; y++) { // unroll
                        acc[4u * x + r][y] = fma(vec4(a4[r]), b4[y], acc[4u * x + r][y]);
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

// A block of the step from k on, 0 past the last k.
fn up_to_last(block: mat4x4<f32>, k: u32, depth_block: u32) -> mat4x4<f32> {
    var own = block;
    if (k + DEPTH > params.k) {
        for (var d = 0u; d < 4u; d++) { // unroll
            own[d] = select(vec4(0.0), own[d], k + 4u * depth_block + d < params.k);
        }
    }
    return own;
}
