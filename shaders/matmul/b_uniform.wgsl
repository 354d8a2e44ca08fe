// How the invocations come by b: every invocation reads all blocks, at addresses that are uniform in the workgroup.
fn hold_b(base: u32, k: u32, column: u32, invocation: u32) -> Held {
    var all: Held;
    for (var x = 0u; x < DEPTH_BLOCKS; x++) { // unroll
        for (var y = 0u; y < SPAN_BLOCKS; y++) { // unroll
            all[SPAN_BLOCKS * x + y] = b_block(base, k + 4u * x, column + 4u * y);
        }
    }
    return all;
}
