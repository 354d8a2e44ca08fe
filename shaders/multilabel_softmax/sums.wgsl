// The two sums of a row, of negative classes in x and of positive ones in y, each relative to the largest of its exponents, 0
// among them: the 1 of log(1 + sum) is exp(0 - largest), and comes last. What the LANES invocations of a row have, they add up.
struct Sums {
    largest: vec2<f32>,
    sum: vec2<f32>,
    broken: bool, // something of the row is not a number, or no label
}

const NAN: u32 = 0x7fc00000u;

var<workgroup> shared_sums: array<vec4<f32>, WORKGROUP>;
var<workgroup> shared_broken: array<u32, WORKGROUP>;

fn joined(a: Sums, b: Sums) -> Sums {
    let largest = max(a.largest, b.largest);
    let sum = a.sum * exp(a.largest - largest) + b.sum * exp(b.largest - largest);
    return Sums(largest, sum, a.broken || b.broken);
}

// In the first of each LANES invocations, the sums of all, always in the same order.
fn of_all_lanes(own: Sums, invocation: u32) -> Sums {
    var all = own;
    for (var step = LANES / 2u; step > 0u; step /= 2u) {
        shared_sums[invocation] = vec4(all.largest, all.sum);
        shared_broken[invocation] = select(0u, 1u, all.broken);
        workgroupBarrier();
        if (invocation % LANES < step) {
            let other = shared_sums[invocation + step];
            all = joined(all, Sums(other.xy, other.zw, shared_broken[invocation + step] != 0u));
        }
        workgroupBarrier();
    }
    return all;
}
