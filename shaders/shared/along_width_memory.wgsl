// What the invocations along WIDTH of a tile have between them, by way of workgroup memory.
fn exchange(own: PerRow) {
    workgroupBarrier();
    for (var g = 0u; g < GROUPS; g++) { // unroll
        left[(y * GROUPS + g) * WIDTH + x] = own[g];
    }
    workgroupBarrier();
}

fn largest_along_width(own: PerRow) -> PerRow {
    exchange(own);
    var all = own;
    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var other = 0u; other < WIDTH; other++) {
            all[g] = max(all[g], left[(y * GROUPS + g) * WIDTH + other]);
        }
    }
    return all;
}

fn sum_along_width(own: PerRow) -> PerRow {
    exchange(own);
    var all: PerRow;
    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var other = 0u; other < WIDTH; other++) {
            all[g] += left[(y * GROUPS + g) * WIDTH + other];
        }
    }
    return all;
}
