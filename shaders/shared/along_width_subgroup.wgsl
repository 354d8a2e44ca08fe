// What the invocations along WIDTH of a tile have between them, told in the subgroup: WIDTH is a power of two that divides its
// size, and neighbours by index are neighbours in the subgroup.
fn largest_along_width(own: PerRow) -> PerRow {
    var all = own;
    for (var distance = 1u; distance < WIDTH; distance *= 2u) {
        for (var g = 0u; g < GROUPS; g++) { // unroll
            all[g] = max(all[g], subgroupShuffleXor(all[g], distance));
        }
    }
    return all;
}

fn sum_along_width(own: PerRow) -> PerRow {
    var all = own;
    for (var distance = 1u; distance < WIDTH; distance *= 2u) {
        for (var g = 0u; g < GROUPS; g++) { // unroll
            all[g] += subgroupShuffleXor(all[g], distance);
        }
    }
    return all;
}
