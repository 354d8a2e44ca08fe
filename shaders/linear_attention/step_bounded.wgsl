// One token under a bounded map.
var<private> divisor: f32;

fn take_key(k_base: u32, z_base: u32, max_base: u32, invocation: u32) {
    for (var f = invocation; f < FEATURES; f += WORKGROUP) {
        let weight = key_feature(k_base, f);
        weights[f] = weight;
        take_z(f, z_base + f, weight);
    }
    workgroupBarrier();
}

fn shrink(f: u32) -> f32 {
    return 1.0;
}

fn take_query(q_base: u32, z_base: u32, max_base: u32, invocation: u32) {
    var sum = 0.0;
    for (var f = invocation; f < FEATURES; f += WORKGROUP) {
        let weight = query_feature(q_base, f);
        weights[f] = weight;
        sum += weight * z_now(f, z_base + f);
    }
    divisor = reduce_sum(sum, invocation) + params.eps;
}

fn finish(sum: f32) -> f32 {
    if (NORMALIZED) {
        return sum / divisor;
    }
    return sum;
}
