// What scores say: which classes are above their threshold, and with what probability, sigmoid(2 (score - threshold)).
//
// An invocation owns four classes of a row, LANES of them a part of the row.
// Workgroup memory: none. Features: none.
// Source: Su Jianlin, kexue.fm/archives/9064.
const WORKGROUP: u32 = 256u;
const LANES: u32 = 256u; // a divisor of WORKGROUP
const VEC4: bool = true; // every row starts at a multiple of four and has a multiple of four classes
alias Elem = vec4<f32>; // f32 otherwise

const ROWS: u32 = WORKGROUP / LANES;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    let row = workgroup / params.parts * ROWS + invocation / LANES;
    let chunk = workgroup % params.parts * params.part_chunks + invocation % LANES;
    if (workgroup >= params.end_workgroup || row >= params.end_row || 4u * chunk >= params.classes) {
        return;
    }
    let four = classes_at(row, chunk);
    let odds = exp(-2.0 * abs(four.x)); // of the less probable side
    let probability = select(odds, vec4(1.0), four.x >= vec4(0.0)) / (vec4(1.0) + odds);
    let prediction = select(vec4(0.0), vec4(1.0), four.x > vec4(0.0));
    var nan = 0x7fc00000u;
    let undefined = bitcast<vec4<f32>>(vec4(nan));
    store_predictions(row, chunk, select(prediction, undefined, four.no_score));
    store_probabilities(row, chunk, select(select(vec4(0.0), probability, four.taking_part), undefined, four.no_score));
}
