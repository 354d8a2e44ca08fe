// Weights of a step's keys in a tile under an exponential map.
//
// The terms exp(q_f + k_f) are products of exp(q_f + top_f - row_max) and exp(k_f - top_f), where top is the step's first key,
// which every row sees that sees any. A key whose features are not all within NARROW of it is weighed by itself.
const NARROW: f32 = 40.0; // a range of exponents whose exponentials f32 holds with room to spare

var<workgroup> wide: array<u32, KEYS>; // 1: weighed by itself

var<private> top: u32; // where the step's first key starts

fn weigh(j: u32, last: u32, k_base: u32) -> PerScore {
    top = k_base + j * params.k_row;
    if (invocation < KEYS) {
        let at = k_base + min(j + invocation, last) * params.k_row;
        var narrow = true;
        for (var c = 0u; c < HEAD_CHUNKS; c++) {
            // Not so of NaN.
            narrow = narrow && all(abs(within(c, load_k(at, c) - load_k(top, c), 0.0)) <= vec4(NARROW));
        }
        wide[invocation] = u32(!narrow);
    }
    workgroupBarrier();
    raise_row_max(j, last, k_base);

    var s = scores(j, last, k_base);
    for (var own = 0u; own < OWN_KEYS; own++) {
        if (wide[key_of(own)] == 1u) {
            let weights = weights_of(k_base + min(j + key_of(own), last) * params.k_row);
            for (var i = 0u; i < OWN_KEYS; i++) { // unroll
                for (var g = 0u; g < GROUPS; g++) { // unroll
                    s[i][g] = select(s[i][g], weights[g], i == own);
                }
            }
        }
    }
    return s;
}

// Brings what the rows have summed to a larger maximum, of the first key and of those weighed by themselves, where a row
// sees them.
fn raise_row_max(j: u32, last: u32, k_base: u32) {
    var raised = row_max;
    for (var i = 0u; i < KEYS; i++) {
        if (i == 0u || wide[i] == 1u) {
            var larger_than = raised;
            for (var c = x; c < HEAD_CHUNKS; c += WIDTH) {
                larger_than = larger(larger_than, c, load_k(k_base + min(j + i, last) * params.k_row, c));
            }
            for (var g = 0u; g < GROUPS; g++) { // unroll
                raised[g] = select(raised[g], larger_than[g], vec4(j + i) <= rows_of(g));
            }
        }
    }
    raised = largest_along_width(raised);
    for (var g = 0u; g < GROUPS; g++) { // unroll
        let shrink = exp(row_max[g] - raised[g]);
        row_max[g] = raised[g];
        sum[g] *= shrink;
        for (var r = 0u; r < 4u; r++) { // unroll
            for (var c = 0u; c < COLUMNS; c++) { // unroll
                o_tile[4u * g + r][c] *= shrink[r];
            }
        }
    }
    tell_row_maxima();
}

// The key at `base` for each row, term by term.
fn weights_of(base: u32) -> PerRow {
    var weights: PerRow;
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        let key = load_k(base, c);
        for (var g = 0u; g < GROUPS; g++) { // unroll
            for (var r = 0u; r < 4u; r++) { // unroll
                let term = exp(min(exponents(c, g, r, key) - row_max[g][r], vec4(0.0)));
                weights[g][r] += (term.x + term.y) + (term.z + term.w);
            }
        }
    }
    return weights;
}

fn queries(part: u32, c: u32) -> mat4x4<f32> {
    return terms(c, load_k(top, c));
}

fn key_chunk(base: u32, c: u32) -> vec4<f32> {
    return within(c, exp(min(load_k(base, c) - load_k(top, c), vec4(NARROW))), 0.0);
}
