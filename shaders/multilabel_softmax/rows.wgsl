// The loss of rows of scores with any number of labels, from two streamed log-sum-exps: log(1 + sum exp(x)) over negative classes
// and log(1 + sum exp(-x)) over positive ones, where x is a score above its threshold and a soft label weighs a class in both.
//
// LANES invocations own a row, or a part of one where few rows are to keep the adapter busy; each takes four classes at a time,
// LANES fours apart. Every score is read once.
// Workgroup memory: 20 bytes an invocation. Features: none.
// Source: Su Jianlin, kexue.fm/archives/7359 and 9064; Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018.
const WORKGROUP: u32 = 256u;
const LANES: u32 = 256u; // a divisor of WORKGROUP
const VEC4: bool = true; // every row starts at a multiple of four and has a multiple of four classes
alias Elem = vec4<f32>; // f32 otherwise

const ROWS: u32 = WORKGROUP / LANES;

const_assert WORKGROUP % LANES == 0u;

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
    let part = workgroup % params.parts;
    let index = params.first_row + workgroup / params.parts * ROWS + invocation / LANES;
    let row = min(index, params.end_row - 1u); // past the last, a row is read and not written
    let lane = invocation % LANES;

    // Its own classes.
    var own = Sums(vec2(0.0), vec2(0.0), labels_are_broken(row));
    let end = min((part + 1u) * params.part_chunks, (params.classes + 3u) / 4u);
    for (var chunk = part * params.part_chunks + lane; chunk < end; chunk += LANES) {
        own = with_classes(own, classes_at(row, chunk));
    }

    // Those of the row or the part.
    let all = of_all_lanes(own, invocation);
    if (lane == 0u && index < params.end_row) {
        write(row, part, all);
    }
}

fn with_classes(own: Sums, four: Classes) -> Sums {
    // What has no weight is in neither maximum nor sum, however large its score.
    let up = select(vec4(0.0), four.x, four.negative > vec4(0.0));
    let down = select(vec4(0.0), -four.x, four.positive > vec4(0.0));
    let largest = vec2(
        max(own.largest.x, max(max(up.x, up.y), max(up.z, up.w))),
        max(own.largest.y, max(max(down.x, down.y), max(down.z, down.w))),
    );
    let more = vec2(
        dot(four.negative, exp(up - vec4(largest.x))),
        dot(four.positive, exp(down - vec4(largest.y))),
    );
    let sum = own.sum * exp(own.largest - largest) + more;
    return Sums(largest, sum, own.broken || any(four.no_score | four.no_label));
}
