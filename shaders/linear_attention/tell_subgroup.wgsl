// What the invocations of a subgroup, which is the workgroup, each own a share of, told to all.
fn tell(own: Share) -> Told {
    var all: Told;
    for (var c = 0u; c < HEAD_CHUNKS; c++) { // unroll
        all[c] = subgroupBroadcast(own[c / WORKGROUP], c % WORKGROUP);
    }
    return all;
}

fn total(own: f32) -> f32 {
    return subgroupAdd(own);
}
