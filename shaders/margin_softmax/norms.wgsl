// 1 over the norms of rows, 0 where a norm is 0; NaN stays.
//
// LANES invocations own a row and add up the squares of every LANESth four, then halve their number until one is left.
// Workgroup memory: 4 * WORKGROUP bytes. Features: none.
const WORKGROUP: u32 = 256u;
const LANES: u32 = 16u; // a power of two
alias Elem = vec4<f32>; // f32 where a row starts or ends off a multiple of four

const ROWS: u32 = WORKGROUP / LANES;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    count: u32, // rows
    dim: u32,
    x_start: u32, // in elements
    x_row: u32,
    norms_start: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Elem>; // [count, dim]
@group(0) @binding(2) var<storage, read_write> norms: array<f32>; // [count]

var<workgroup> squares: array<f32, WORKGROUP>;

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
    let lane = invocation % LANES;
    let row = workgroup * ROWS + invocation / LANES;
    let base = params.x_start + min(row, params.count - 1u) * params.x_row;

    var sum = 0.0;
    for (var c = 4u * lane; c < params.dim; c += 4u * LANES) {
        let four = load_four(base, c);
        sum += dot(four, four);
    }
    squares[invocation] = sum;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            sum += squares[invocation + half];
            squares[invocation] = sum;
        }
    }
    if (lane == 0u && row < params.count) {
        let zero = sum == 0.0;
        norms[params.norms_start + row] = select(inverseSqrt(select(sum, 1.0, zero)), 0.0, zero);
    }
}
