// The gradients of a row's classes: of scores (1 - t) exp(x - lse_neg) - t exp(-x - lse_pos), of soft labels
// exp(-x - lse_pos) - exp(x - lse_neg), each times the gradient that comes in; and their sums over rows, for thresholds.
//
// An invocation owns four classes, and walks rows WORKGROUP / LANES apart.
// Workgroup memory: 16 bytes an invocation where sums are wanted. Features: none.
// Source: Su Jianlin, kexue.fm/archives/7359 and 9064.
const WORKGROUP: u32 = 256u;
const LANES: u32 = 256u; // a divisor of WORKGROUP
const VEC4: bool = true; // every row starts at a multiple of four and has a multiple of four classes
alias Elem = vec4<f32>; // f32 otherwise

const ROWS: u32 = WORKGROUP / LANES;
const LARGEST_EXPONENT: f32 = 80.0;

const_assert WORKGROUP % LANES == 0u;

@group(0) @binding(5) var<storage, read_write> row_states: array<vec4<f32>>; // lse_neg, lse_pos, gradient, 1 if whole

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
    let chunk = workgroup % params.parts * LANES + invocation % LANES;
    let group = workgroup / params.parts;
    let first = params.first_row + group * params.rows_of_a_workgroup;
    var end = min(first + params.rows_of_a_workgroup, params.end_row);
    if (4u * chunk >= params.classes) {
        end = first; // no classes of the row are its own
    }
    var nan = 0x7fc00000u;
    let undefined = bitcast<vec4<f32>>(vec4(nan));
    var sum = vec4(0.0);
    for (var row = first + invocation / LANES; row < end; row += ROWS) {
        let own = row_states[row - params.first_row];
        let four = classes_at(row, chunk);
        let up = exp(min(four.x - vec4(own.x), vec4(LARGEST_EXPONENT)));
        let down = exp(min(-four.x - vec4(own.y), vec4(LARGEST_EXPONENT)));
        let dscore = own.z * (four.negative * up - four.positive * down);
        let dlabel = own.z * (down - up);

        // A broken row is one in its own gradients, and none in those that rows share.
        let counts = four.taking_part & vec4(own.w > 0.0);
        let instead = select(vec4(0.0), undefined, four.taking_part);
        store_dscores(row, chunk, select(instead, dscore, counts));
        store_dsoft_labels(row, chunk, select(instead, dlabel, counts));
        sum -= select(vec4(0.0), dscore, counts);
    }
    add_rows(params.first_sum + group, chunk, invocation, sum);
}
