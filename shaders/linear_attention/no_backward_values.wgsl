// Rows are those of values: queries from j on weigh them, and are not divided.
fn take_rows(last_row: u32) {}

fn take_head(batch: u32, head: u32) {}

fn divided(products: PerScore, j: u32, last: u32) -> PerScore {
    var s = products;
    for (var i = 0u; i < OWN_KEYS; i++) { // unroll
        for (var g = 0u; g < GROUPS; g++) { // unroll
            s[i][g] = pair_weight(s[i][g]);
        }
    }
    return s;
}
