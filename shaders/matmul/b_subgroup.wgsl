// How the invocations come by b: each reads one block of 4 x 4, and the subgroup, which is the workgroup of
// DEPTH_BLOCKS * SPAN_BLOCKS invocations, tells each to all.
fn hold_b(base: u32, k: u32, column: u32, invocation: u32) -> Held {
    let own = b_block(base, k + 4u * (invocation / SPAN_BLOCKS), column + 4u * (invocation % SPAN_BLOCKS));
    var all: Held;
    for (var i = 0u; i < DEPTH_BLOCKS * SPAN_BLOCKS; i++) { // unroll
        for (var d = 0u; d < 4u; d++) { // unroll
            all[i][d] = subgroupBroadcast(own[d], i);
        }
    }
    return all;
}
