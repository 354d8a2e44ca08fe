// What top_k.wgsl knows of rows after a round, and its counts of each split: those of the round before, and those that follow.
// Of a workspace's regions, a dispatch that writes one has all to be written.
const RECORD: u32 = 260u; // 256 counts; the order, the column and how many are kept; whether all are

@group(0) @binding(20) var<storage, read_write> tallies: array<u32>; // [rows, splits, RECORD]
@group(0) @binding(21) var<storage, read_write> tallies_next: array<u32>; // [rows, splits, RECORD]

fn load_tallies(row: u32, invocation: u32) {
    let first = row * params.splits * RECORD;
    var sum = 0u;
    var is_broken = 0u;
    for (var s = 0u; s < params.splits; s++) {
        sum += tallies[first + s * RECORD + invocation];
        is_broken |= tallies[first + s * RECORD + 259u];
    }
    atomicStore(&counts[invocation], sum);
    if (invocation == 0u) {
        found[0] = vec3(tallies[first + 256u], tallies[first + 257u], tallies[first + 258u]);
        atomicStore(&broken[0], is_broken);
    }
}

fn store_tallies(workgroup: u32, invocation: u32) {
    let first = workgroup * RECORD;
    tallies_next[first + invocation] = atomicLoad(&counts[invocation]);
    if (invocation == 0u) {
        tallies_next[first + 256u] = found[0].x;
        tallies_next[first + 257u] = found[0].y;
        tallies_next[first + 258u] = found[0].z;
        tallies_next[first + 259u] = atomicLoad(&broken[0]);
    }
}
