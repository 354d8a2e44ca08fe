// The steps of KEYS keys in which a workgroup walks a range, from `begin` on; none from `end` on counts.
struct Walk {
    begin: i32,
    end: i32,
    whole_from: i32, // the first step of keys that all the rows see; those before it and
    whole_to: i32, // from here on are edges
    steps: i32,
}

// Some row sees the keys of [begin, end), and all rows those of [all_begin, all_end).
fn walk_between(begin: i32, end: i32, all_begin: i32, all_end: i32) -> Walk {
    let steps = steps_of(end - begin);
    let whole_from = min(steps_of(all_begin - begin), steps);
    let whole_to = max((min(all_end, end) - begin) / i32(KEYS), whole_from);
    return Walk(begin, end, whole_from, whole_to, steps);
}

// Steps that `keys` keys take.
fn steps_of(keys: i32) -> i32 {
    return (max(keys, 0) + i32(KEYS) - 1) / i32(KEYS);
}

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
