// The sum of what LANES neighbours have of a number each, always in the same order: halves of them add each other's. The first has it.
var<workgroup> lane_sums: array<f32, WORKGROUP>;

fn sum_of_lanes(own: f32, invocation: u32) -> f32 {
    var sum = own;
    lane_sums[invocation] = sum;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (invocation % LANES < half) {
            sum += lane_sums[invocation + half];
            lane_sums[invocation] = sum;
        }
    }
    return sum;
}
