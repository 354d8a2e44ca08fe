// Matrix product c = activation(a b + bias) by matrices that subgroups multiply: factors rounded to f16, sums in f32.
//
// One workgroup owns a tile of TILE_M rows and TILE_N columns of one matrix and walks a range of k, DEPTH at a time. Its
// subgroups stand SUBGROUPS_M down and SUBGROUPS_N across, and each keeps the sums of ROWS rows and COLUMNS columns. The
// invocations bring a and b to workgroup memory in blocks of 4 x 4, whatever their layout; the next step's are fetched before
// a step's products, which hides their latency. There neighbours along k are neighbours, of b too, so that what an invocation has of a
// matrix lies together; rows are 8 numbers longer than they need be, so that those of one matrix lie in different banks.
// Barriers depend on the workgroup alone; where a subgroup stands, on its number alone.
// Workgroup memory: 2 * (TILE_M + TILE_N) * (DEPTH + 8) + 4 * SIZE * SIZE * subgroups bytes.
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
const A_F16: bool = false; // a is stored in f16, and is copied as it is
const B_F16: bool = false;
alias AFour = vec4<f32>; // four numbers on their way from a: of f16, if it is stored so
alias BFour = vec4<f32>;

const SUBGROUPS: u32 = SUBGROUPS_M * SUBGROUPS_N;
const WORKGROUP: u32 = SUBGROUP * SUBGROUPS;
const TILE_M: u32 = ROWS * SUBGROUPS_M;
const TILE_N: u32 = COLUMNS * SUBGROUPS_N;
const ROW_MATRICES: u32 = ROWS / SIZE;
const COLUMN_MATRICES: u32 = COLUMNS / SIZE;
const DEPTH_BLOCKS: u32 = DEPTH / 4u;
const A_BLOCKS: u32 = TILE_M / 4u * DEPTH_BLOCKS;
const B_BLOCKS: u32 = TILE_N / 4u * DEPTH_BLOCKS;
const A_CARRIED: u32 = (A_BLOCKS + WORKGROUP - 1u) / WORKGROUP; // by each invocation
const B_CARRIED: u32 = (B_BLOCKS + WORKGROUP - 1u) / WORKGROUP;
const STRIDE: u32 = DEPTH + 8u;
const_assert ROWS % SIZE == 0u && COLUMNS % SIZE == 0u && DEPTH % SIZE == 0u && TILE_M % 32u == 0u && TILE_N % 32u == 0u;

// Nested, so that a compiler sees that a matrix starts at a multiple of 16 bytes.
var<workgroup> a_tile: array<array<array<f16, 4>, STRIDE / 4u>, TILE_M>; // [row, k]
var<workgroup> b_tile: array<array<array<f16, 4>, STRIDE / 4u>, TILE_N>; // [column, k]
var<workgroup> c_tile: array<array<array<array<f32, 4>, SIZE / 4u>, SIZE>, SUBGROUPS>; // a matrix of each subgroup

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(num_subgroups) count: u32,
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
    if (!subgroups_are_whole(invocation, size, count)) {
        for (var i = invocation; i < TILE_M * TILE_N / 4u; i += WORKGROUP) {
            let column = first_column + 4u * (i % (TILE_N / 4u));
            write_sums(slice, first_row + i / (TILE_N / 4u), column, vec4(not_a_number(size)));
        }
        return;
    }
    let own_row = subgroup / SUBGROUPS_N * ROWS; // of this subgroup, in the tile
    let own_column = subgroup % SUBGROUPS_N * COLUMNS;
    let a_base = params.a_start + batch * params.a_batch + head * params.a_head;
    let b_base = params.b_start + batch * params.b_batch + head * params.b_head;

    var a_next: array<array<AFour, 4>, A_CARRIED>;
    var b_next: array<array<BFour, 4>, B_CARRIED>;
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
                let place = block_place(i * WORKGROUP + invocation, A_TRANSPOSED);
                let rows = transpose(a_block(a_base, first_row + place.x, k + place.y));
                for (var r = 0u; r < 4u; r++) { // unroll
                    a_next[i][r] = AFour(rows[r]);
                }
            }
            for (var i = 0u; i < B_CARRIED; i++) { // unroll
                let place = block_place(i * WORKGROUP + invocation, !B_TRANSPOSED);
                let columns = transpose(b_block(b_base, k + place.y, first_column + place.x));
                for (var c = 0u; c < 4u; c++) { // unroll
                    b_next[i][c] = BFour(columns[c]);
                }
            }
        }

        // Add the products of what is in workgroup memory.
        if (k > first_k) {
            for (var d = 0u; d < DEPTH / SIZE; d++) { // unroll
                var right: array<Right, COLUMN_MATRICES>;
                for (var y = 0u; y < COLUMN_MATRICES; y++) { // unroll
                    right[y] = coopLoad<Right>(&b_tile[own_column + y * SIZE][d * SIZE / 4u][0], STRIDE);
                }
                for (var x = 0u; x < ROW_MATRICES; x++) { // unroll
                    let left = coopLoadT<Left>(&a_tile[own_row + x * SIZE][d * SIZE / 4u][0], STRIDE);
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
                    coopStoreT(sums[x][y], &c_tile[subgroup][0][0][0], SIZE);
                }
            }
        }
        workgroupBarrier();
        let row = first_row + own_row + i / COLUMN_MATRICES * SIZE;
        write_matrix(slice, row, first_column + own_column + i % COLUMN_MATRICES * SIZE, subgroup, lane);
    }
}

// A word of workgroup memory for what the invocations ask of each other before the first step.
fn first_word() -> f32 {
    return workgroupUniformLoad(&c_tile[0][0][0][0]);
}

fn put_first_word(word: f32) {
    c_tile[0][0][0][0] = word;
}

// Row or column (x) and k (y) in the tile of block `index`. Neighbours bring what lies side by side in memory: along k, or eight `across`
// it, which all lie in two banks of workgroup memory.
fn block_place(index: u32, across: bool) -> vec2<u32> {
    if (across) {
        return 4u * vec2(index / (8u * DEPTH_BLOCKS) * 8u + index % 8u, index / 8u % DEPTH_BLOCKS);
    }
    return 4u * vec2(index / DEPTH_BLOCKS, index % DEPTH_BLOCKS);
}

fn put_a(index: u32, block: array<AFour, 4>) {
    if (A_BLOCKS % WORKGROUP != 0u && index >= A_BLOCKS) {
        return;
    }
    let place = block_place(index, A_TRANSPOSED);
    for (var r = 0u; r < 4u; r++) { // unroll
        let four = halves(vec4<f32>(block[r]), A_F16);
        for (var d = 0u; d < 4u; d++) { // unroll
            a_tile[place.x + r][place.y / 4u][d] = four[d];
        }
    }
}

fn put_b(index: u32, block: array<BFour, 4>) {
    if (B_BLOCKS % WORKGROUP != 0u && index >= B_BLOCKS) {
        return;
    }
    let place = block_place(index, !B_TRANSPOSED);
    for (var c = 0u; c < 4u; c++) { // unroll
        let four = halves(vec4<f32>(block[c]), B_F16);
        for (var d = 0u; d < 4u; d++) { // unroll
            b_tile[place.x + c][place.y / 4u][d] = four[d];
        }
    }
}

// The matrix that the subgroup has in workgroup memory.
fn write_matrix(slice: u32, first_row: u32, first_column: u32, subgroup: u32, lane: u32) {
    for (var i = lane; i < SIZE * SIZE / 4u; i += SUBGROUP) {
        let row = i / (SIZE / 4u);
        let c = i % (SIZE / 4u);
        let four = vec4(
            c_tile[subgroup][row][c][0], c_tile[subgroup][row][c][1], c_tile[subgroup][row][c][2], c_tile[subgroup][row][c][3],
        );
        write_sums(slice, first_row + row, first_column + 4u * c, four);
    }
}
