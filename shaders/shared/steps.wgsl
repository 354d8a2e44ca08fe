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
