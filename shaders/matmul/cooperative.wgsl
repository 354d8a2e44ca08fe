// Matrix product c = activation(a b + bias) by matrices that subgroups multiply: factors rounded to f16, sums in f32.
//
// One workgroup owns a tile of TILE_M rows and TILE_N columns of one matrix and walks a range of k, DEPTH at a time. Its
// subgroups stand SUBGROUPS_M down and SUBGROUPS_N across, and each keeps the sums of ROWS rows and COLUMNS columns. The
// invocations bring a and b to workgroup memory in blocks of 4 x 4, whatever their layout; the next step's are fetched before
// a step's products, which hides their latency. Rows there are 8 numbers longer than they need be, so that those of one
// matrix lie in different banks. Barriers depend on the workgroup alone; where a subgroup stands, on its number alone.
// Workgroup memory: 2 * (TILE_M * (DEPTH + 8) + DEPTH * (TILE_N + 8)) + 4 * SIZE * SIZE * subgroups bytes.
// Features: subgroups, f16, cooperative matrices.
// Source: Markidis et al., "NVIDIA Tensor Core Programmability, Performance & Precision", 2018, section IV.
const SUBGROUP: u32 = 32u; // invocations in a subgroup
const SUBGROUPS_M: u32 = 4u;
const SUBGROUPS_N: u32 = 2u;
const ROWS: u32 = 32u;
const COLUMNS: u32 = 64u;
const DEPTH: u32 = 32u; // k of a step
const A_TRANSPOSED: bool = false; // neighbours along m, not k, are neighbours in memory
const B_TRANSPOSED: bool = false; // along k, not n

const WORKGROUP: u32 = SUBGROUP * SUBGROUPS_M * SUBGROUPS_N;
const TILE_M: u32 = ROWS * SUBGROUPS_M;
const TILE_N: u32 = COLUMNS * SUBGROUPS_N;
const ROW_MATRICES: u32 = ROWS / SIZE;
const COLUMN_MATRICES: u32 = COLUMNS / SIZE;
const DEPTH_BLOCKS: u32 = DEPTH / 4u;
const A_BLOCKS: u32 = TILE_M / 4u * DEPTH_BLOCKS;
const B_BLOCKS: u32 = TILE_N / 4u * DEPTH_BLOCKS;
const A_CARRIED: u32 = (A_BLOCKS + WORKGROUP - 1u) / WORKGROUP; // by each invocation
const B_CARRIED: u32 = (B_BLOCKS + WORKGROUP - 1u) / WORKGROUP;
const A_STRIDE: u32 = DEPTH + 8u;
const B_STRIDE: u32 = TILE_N + 8u;
const_assert ROWS % SIZE == 0u && COLUMNS % SIZE == 0u && DEPTH % SIZE == 0u;

var<workgroup> a_tile: array<f16, TILE_M * A_STRIDE>; // [row, k]
var<workgroup> b_tile: array<f16, DEPTH * B_STRIDE>; // [k, column]
var<workgroup> c_tile: array<f32, SUBGROUPS_M * SUBGROUPS_N * SIZE * SIZE>; // a matrix of each subgroup

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
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
    let own_row = subgroup / SUBGROUPS_N * ROWS; // of this subgroup, in the tile
    let own_column = subgroup % SUBGROUPS_N * COLUMNS;
    let a_base = params.a_start + batch * params.a_batch + head * params.a_head;
    let b_base = params.b_start + batch * params.b_batch + head * params.b_head;

    var a_next: array<mat4x4<f32>, A_CARRIED>;
    var b_next: array<mat4x4<f32>, B_CARRIED>;
    var sums: array<array<Sums, COLUMN_MATRICES>, ROW_MATRICES>;
    for (var x = 0u; x < ROW_MATRICES; x++) { // unroll
        for (var y = 0u; y < COLUMN_MATRICES; y++) { // unroll
            sums[x][y] = Sums();
        }
    }
    for (var k = first_k; k < end_k + DEPTH; k += DEPTH) {
        // The blocks fetched a step ago go to workgroup memory, once all have done with what is there.
        if (k > first_k) {
            workgroupBarrier();
            for (var i = 0u; i < A_CARRIED; i++) { // unroll
                put_a(i * WORKGROUP + invocation, a_next[i]);
            }
            for (var i = 0u; i < B_CARRIED; i++) { // unroll
                put_b(i * WORKGROUP + invocation, b_next[i]);
            }
            workgroupBarrier();
        }

        // Fetch the next; beyond the last k they are zero.
        if (k < end_k) {
            for (var i = 0u; i < A_CARRIED; i++) { // unroll
                let place = a_place(i * WORKGROUP + invocation);
                a_next[i] = a_block(a_base, first_row + place.x, k + place.y);
            }
            for (var i = 0u; i < B_CARRIED; i++) { // unroll
                let place = b_place(i * WORKGROUP + invocation);
                b_next[i] = b_block(b_base, k + place.x, first_column + place.y);
            }
        }

        // Add the products of what is in workgroup memory.
        if (k > first_k) {
            for (var d = 0u; d < DEPTH / SIZE; d++) {
                var right: array<Right, COLUMN_MATRICES>;
                for (var y = 0u; y < COLUMN_MATRICES; y++) { // unroll
                    right[y] = coopLoadT<Right>(&b_tile[d * SIZE * B_STRIDE + own_column + y * SIZE], B_STRIDE);
                }
                for (var x = 0u; x < ROW_MATRICES; x++) { // unroll
                    let left = coopLoadT<Left>(&a_tile[(own_row + x * SIZE) * A_STRIDE + d * SIZE], A_STRIDE);
                    for (var y = 0u; y < COLUMN_MATRICES; y++) { // unroll
                        sums[x][y] = coopMultiplyAdd(left, right[y], sums[x][y]);
                    }
                }
            }
        }
    }

    // Only in memory is it known which number stands where.
    for (var i = 0u; i < ROW_MATRICES * COLUMN_MATRICES; i++) {
        workgroupBarrier();
        for (var x = 0u; x < ROW_MATRICES; x++) { // unroll
            for (var y = 0u; y < COLUMN_MATRICES; y++) { // unroll
                if (i == x * COLUMN_MATRICES + y) {
                    coopStoreT(sums[x][y], &c_tile[subgroup * SIZE * SIZE], SIZE);
                }
            }
        }
        workgroupBarrier();
        let row = first_row + own_row + i / COLUMN_MATRICES * SIZE;
        write_matrix(slice, row, first_column + own_column + i % COLUMN_MATRICES * SIZE, subgroup, lane);
    }
}

// Row and k in the tile of block `index` of a; neighbours bring what lies side by side in memory.
fn a_place(index: u32) -> vec2<u32> {
    if (A_TRANSPOSED) {
        return 4u * vec2(index % (TILE_M / 4u), index / (TILE_M / 4u));
    }
    return 4u * vec2(index / DEPTH_BLOCKS, index % DEPTH_BLOCKS);
}

// K and column in the tile of block `index` of b.
fn b_place(index: u32) -> vec2<u32> {
    if (B_TRANSPOSED) {
        return 4u * vec2(index % DEPTH_BLOCKS, index / DEPTH_BLOCKS);
    }
    return 4u * vec2(index / (TILE_N / 4u), index % (TILE_N / 4u));
}

// Four rows (inner) at four k.
fn put_a(index: u32, block: mat4x4<f32>) {
    if (index >= A_BLOCKS) {
        return;
    }
    let place = a_place(index);
    let rows = transpose(block);
    for (var r = 0u; r < 4u; r++) { // unroll
        let row = to_f16(rows[r]);
        for (var d = 0u; d < 4u; d++) { // unroll
            a_tile[(place.x + r) * A_STRIDE + place.y + d] = row[d];
        }
    }
}

// Four columns (inner) at four k.
fn put_b(index: u32, block: mat4x4<f32>) {
    if (index >= B_BLOCKS) {
        return;
    }
    let place = b_place(index);
    for (var d = 0u; d < 4u; d++) { // unroll
        let row = to_f16(block[d]);
        for (var c = 0u; c < 4u; c++) { // unroll
            b_tile[(place.x + d) * B_STRIDE + place.y + c] = row[c];
        }
    }
}

// The matrix that the subgroup has in workgroup memory.
fn write_matrix(slice: u32, first_row: u32, first_column: u32, subgroup: u32, lane: u32) {
    for (var i = lane; i < SIZE * SIZE / 4u; i += SUBGROUP) {
        let at = subgroup * SIZE * SIZE + 4u * i;
        let four = vec4(c_tile[at], c_tile[at + 1u], c_tile[at + 2u], c_tile[at + 3u]);
        write_sums(slice, first_row + i / (SIZE / 4u), first_column + 4u * (i % (SIZE / 4u)), four);
    }
}
