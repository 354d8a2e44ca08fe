// Rows are those of values: queries from j on weigh them, and are divided, each by its own w.
@group(0) @binding(12) var<storage, read_write> numbers: array<vec4<f32>>; // [q_heads, rows of the round]: unit, 1 / w, -do.o, unit

fn take_rows(last_row: u32) {}

fn take_head(batch: u32, head: u32) {
    numbers_at = params.numbers_start + batch * params.numbers_batch + head * params.numbers_head;
}

fn divided(products: PerScore, j: u32, last: u32) -> PerScore {
    var s = products;
    for (var i = 0u; i < OWN_KEYS; i++) { // unroll
        let factor = numbers[numbers_at + min(j + key_of(i), last)].y;
        for (var g = 0u; g < GROUPS; g++) { // unroll
            s[i][g] = factor * pair_weight(s[i][g]);
        }
    }
    return s;
}
