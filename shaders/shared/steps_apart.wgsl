// From left to right, so that a row's sums do not depend on its tile: steps on the left edge, where a row may not see a key;
// whole steps; steps on the right edge. Edges stand in one loop and whole steps in another, so that a driver compiles two. They
// test at their end, behind a branch: llvmpipe runs the body of a loop that tests first once more, without effect.
fn take_steps(walk: Walk, k_base: u32, v_base: u32) {
    let last = u32(walk.end) - 1u;
    for (var side = 0; side < 2; side++) {
        var t = select(walk.whole_to, 0, side == 0);
        let edge_end = select(walk.steps, walk.whole_from, side == 0);
        if (t < edge_end) {
            loop {
                step(u32(walk.begin + t * i32(KEYS)), last, true, k_base, v_base);
                continuing {
                    t++;
                    break if t >= edge_end;
                }
            }
        }
        if (side == 0 && !ROW_MASK && walk.whole_from < walk.whole_to) {
            t = walk.whole_from;
            loop {
                step(u32(walk.begin + t * i32(KEYS)), last, false, k_base, v_base);
                continuing {
                    t++;
                    break if t >= walk.whole_to;
                }
            }
        }
    }
}
