// One token under an exponential map; q and k hold exponents.
@group(0) @binding(7) var<storage, read_write> state_max: array<u32>; // [batch, kv_heads, FEATURES or 1], f32

const LOWEST: f32 = -1.0e38; // the maximum of no keys
const MINUS_INFINITY: u32 = 0xff800000u; // its bits in a state

var<workgroup> shrinks: array<f32, FEATURES>; // what a feature's sums are multiplied with
var<private> row_max: f32;
var<private> factor: f32; // one over the divisor

fn take_key(k_base: u32, z_base: u32, max_base: u32, invocation: u32) {
    // The largest exponent of the key, where one maximum stands for the head.
    var largest = LOWEST;
    if (PER_HEAD) {
        for (var f = invocation; f < FEATURES; f += WORKGROUP) {
            largest = max(largest, k[k_base + f]);
        }
        largest = reduce_max(largest, invocation);
    }
    for (var f = invocation; f < FEATURES; f += WORKGROUP) {
        let old = old_max(max_base + f * params.max_feature);
        let new_max = max(old, select(k[k_base + f], largest, PER_HEAD));
        weights[f] = exp(k[k_base + f] - new_max);
        shrinks[f] = exp(old - new_max);
        take_z(f, z_base + f, weights[f]);
    }
    // Every invocation has read the head's one maximum before one of them replaces it.
    storageBarrier();
    for (var f = invocation; f < select(FEATURES, 1u, PER_HEAD); f += WORKGROUP) {
        let at = max_base + f * params.max_feature;
        state_max[at] = bitcast<u32>(max(old_max(at), select(k[k_base + f], largest, PER_HEAD)));
    }
    workgroupBarrier();
    storageBarrier();
}

fn old_max(at: u32) -> f32 {
    let bits = state_max[at];
    return max(bitcast<f32>(select(bits, bitcast<u32>(LOWEST), bits == MINUS_INFINITY)), LOWEST);
}

fn shrink(f: u32) -> f32 {
    return shrinks[f];
}

fn take_query(q_base: u32, z_base: u32, max_base: u32, invocation: u32) {
    var largest = LOWEST;
    for (var f = invocation; f < FEATURES; f += WORKGROUP) {
        largest = max(largest, q[q_base + f] + old_max(max_base + f * params.max_feature));
    }
    row_max = reduce_max(largest, invocation);
    var sum = 0.0;
    for (var f = invocation; f < FEATURES; f += WORKGROUP) {
        let weight = exp(q[q_base + f] + old_max(max_base + f * params.max_feature) - row_max);
        weights[f] = weight;
        sum += weight * z_now(f, z_base + f);
    }
    // Where eps outweighs the sum beyond what f32 holds, the row is 0.
    let log_ratio = params.log_eps - row_max;
    factor = select(1.0, 0.0, log_ratio > 80.0) / (reduce_sum(sum, invocation) + exp(min(log_ratio, 80.0)));
}

fn finish(sum: f32) -> f32 {
    if (NORMALIZED) {
        return sum * factor;
    }
    // In two steps, as exp(row_max) may overflow where its product with a small sum does not.
    let half = exp(0.5 * row_max);
    return sum * half * half;
}
