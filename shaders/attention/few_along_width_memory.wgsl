// What the invocations along WIDTH have between them, by way of workgroup memory: each of the first adds up one number, of a key and a
// row that is told.
var<workgroup> sums: array<array<array<f32, 4>, HEIGHT>, ROWS>;
const_assert 4u * TOLD <= WIDTH;

fn sum_along_width(own: PerRow) -> PerRow {
    for (var part = 0u; part < ROWS / TOLD; part++) { // unroll
        for (var i = 0u; i < TOLD; i++) { // unroll
            told[i].by[y][x] = own[TOLD * part + i];
        }
        workgroupBarrier();
        if (x < 4u * TOLD) {
            var one = 0.0;
            for (var i = 0u; i < WIDTH; i++) {
                one += told[x / 4u].by[y][i][x % 4u];
            }
            sums[TOLD * part + x / 4u][y][x % 4u] = one;
        }
        // What is told next, and added up after one more barrier, was read by now.
        workgroupBarrier();
    }
    var all: PerRow;
    for (var r = 0u; r < ROWS; r++) { // unroll
        let row = sums[r][y];
        all[r] = vec4(row[0], row[1], row[2], row[3]);
    }
    return all;
}
