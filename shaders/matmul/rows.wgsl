// Matrix product c = activation(a b + bias), blocked in registers alone: for CPUs, whose caches serve as workgroup memory.
//
// One workgroup owns 4 * WORKGROUP rows and COLUMNS columns of one matrix and walks a range of k, DEPTH at a time. One invocation owns
// four of the rows; a vec4 holds one number of each. How the invocations come by b is another file's matter. All control
// flow is uniform in the workgroup.
// Workgroup memory: none. Features: none; subgroups where b_subgroup.wgsl is appended.
const WORKGROUP: u32 = 8u;
const COLUMNS: u32 = 32u; // a multiple of SPAN
const SPAN: u32 = 16u; // columns whose b is held at a time
const DEPTH: u32 = 8u; // k of a step

const DEPTH_BLOCKS: u32 = DEPTH / 4u;
const SPAN_BLOCKS: u32 = SPAN / 4u;
const TILE_M: u32 = 4u * WORKGROUP;
const_assert COLUMNS % SPAN == 0u;

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
    let row = workgroup % params.row_tiles * TILE_M + 4u * invocation;
    let first_column = workgroup / params.row_tiles % params.column_tiles * COLUMNS;
    let a_base = params.a_start + batch * params.a_batch + head * params.a_head;
    let b_base = params.b_start + batch * params.b_batch + head * params.b_head;

    var acc: array<vec4<f32>, COLUMNS>; // four rows of a column
    for (var k = first_k; k < end_k; k += DEPTH) {
        var a4: array<mat4x4<f32>, DEPTH_BLOCKS>; // four rows of four k
        for (var x = 0u; x < DEPTH_BLOCKS; x++) { // unroll
            a4[x] = a_block(a_base, row, k + 4u * x);
        }
        for (var s = 0u; s < COLUMNS / SPAN; s++) { // unroll
            let held = hold_b(b_base, k, first_column + s * SPAN, invocation);
            for (var y = 0u; y < SPAN_BLOCKS; y++) { // unroll
                for (var d = 0u; d < DEPTH; d++) { // unroll
                    let b4 = held[SPAN_BLOCKS * (d / 4u) + y][d % 4u];
                    for (var j = 0u; j < 4u; j++) { // unroll
                        acc[s * SPAN + 4u * y + j] = fma(a4[d / 4u][d % 4u], vec4(b4[j]), acc[s * SPAN + 4u * y + j]);
                    }
                }
            }
        }
    }

    for (var y = 0u; y < COLUMNS / 4u; y++) { // unroll
        let columns = mat4x4(acc[4u * y], acc[4u * y + 1u], acc[4u * y + 2u], acc[4u * y + 3u]);
        let rows = transpose(columns);
        for (var r = 0u; r < 4u; r++) { // unroll
            write_sums(slice, row + r, first_column + 4u * y, rows[r]);
        }
    }
}

// Blocks of four k (outer) by four columns.
alias Held = array<mat4x4<f32>, DEPTH_BLOCKS * SPAN_BLOCKS>;
