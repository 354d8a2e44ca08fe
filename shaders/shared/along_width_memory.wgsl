// What the invocations along WIDTH of a tile have between them, by way of workgroup memory: a term each.
fn exchange(own: PerRow) {
    workgroupBarrier();
    for (var g = 0u; g < GROUPS; g++) { // unroll
        left[x / 4u][x % 4u][g][y] = own[g];
    }
    workgroupBarrier();
}

fn largest_along_width(own: PerRow) -> PerRow {
    exchange(own);
    var all = own;
    for (var chunk = 0u; chunk < WIDTH / 4u; chunk++) {
        for (var i = 0u; i < 4u; i++) { // unroll
            for (var g = 0u; g < GROUPS; g++) { // unroll
                all[g] = max(all[g], left[chunk][i][g][y]);
            }
        }
    }
    return all;
}

fn sum_along_width(own: PerRow) -> PerRow {
    exchange(own);
    var all: PerRow;
    for (var chunk = 0u; chunk < WIDTH / 4u; chunk++) {
        for (var i = 0u; i < 4u; i++) { // unroll
            for (var g = 0u; g < GROUPS; g++) { // unroll
                all[g] += left[chunk][i][g][y];
            }
        }
    }
    return all;
}
