// The steps of KEYS keys in which a workgroup walks a range.
//
// Steps from `begin` on hold every key of a range that some row of the workgroup sees, and none from `end` on counts. The
// `whole` steps from `whole_begin` on hold only keys that all the rows see; the others, to their left and right, are edges.
struct Walk {
    begin: i32,
    end: i32,
    whole_begin: i32,
    whole: i32, // steps
    left_edges: i32, // steps
    edges: i32, // steps
}

// The rows see keys of [begin, end), and all of them those of [all_begin, all_end).
fn steps_between(begin: i32, end: i32, all_begin: i32, all_end: i32) -> Walk {
    let whole_begin = min(begin + steps(all_begin - begin) * i32(KEYS), end);
    let whole = max(all_end - whole_begin, 0) / i32(KEYS);
    let left_edges = steps(whole_begin - begin);
    let edges = left_edges + steps(end - whole_begin - whole * i32(KEYS));
    return Walk(begin, end, whole_begin, whole, left_edges, edges);
}

// Steps that `keys` keys take.
fn steps(keys: i32) -> i32 {
    return (max(keys, 0) + i32(KEYS) - 1) / i32(KEYS);
}

// The first key of edge t.
fn edge_at(walk: Walk, t: i32) -> i32 {
    let right = walk.whole_begin + (walk.whole + t - walk.left_edges) * i32(KEYS);
    return select(right, walk.begin + t * i32(KEYS), t < walk.left_edges);
}
