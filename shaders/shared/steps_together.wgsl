// From left to right, so that a row's sums do not depend on its tile, in one loop: a compiler holds the registers of one step, and its
// code is half as long. What an edge takes is behind branches that are uniform in the workgroup.
var<private> left_edge: bool; // whether some row may see none of the step's first keys

fn take_steps(walk: Walk, k_base: u32, v_base: u32) {
    let last = u32(walk.end) - 1u;
    let whole = u32(walk.whole_to - walk.whole_from);
    for (var t = 0; t < walk.steps; t++) {
        left_edge = t < walk.whole_from;
        step(u32(walk.begin + t * i32(KEYS)), last, u32(t - walk.whole_from) >= whole, k_base, v_base);
    }
}
