// Rows in tiles under an exponential map: q holds exponents, and a pair's weight is the sum of exp(q_f + k_f). What a row has
// summed is relative to exp(row_max), the largest term it has met.
const LOWEST: f32 = -1.0e38; // the exponent of nothing; sums and differences of two such stay finite

var<workgroup> row_maxima: array<vec4<f32>, ROW_GROUPS>; // row_max, for those that bring the rows

var<private> row_max: PerRow;
var<private> q_start: u32; // of the head
var<private> q_last: u32; // the tile's last row

// The largest of the state's terms.
fn begin_rows(base: u32, q_base: u32, last_row: u32) {
    q_start = q_base;
    q_last = last_row;
    for (var g = 0u; g < GROUPS; g++) { // unroll
        row_max[g] = vec4(LOWEST);
    }
    for (var c = x; c < FEATURE_CHUNKS; c += WIDTH) {
        row_max = larger(row_max, c, maxima(base, c));
    }
    row_max = largest_along_width(row_max);
    tell_row_maxima();
}

// To be read after a barrier.
fn tell_row_maxima() {
    if (x == 0u) {
        for (var g = 0u; g < GROUPS; g++) { // unroll
            row_maxima[g * HEIGHT + y] = row_max[g];
        }
    }
}

// Exponents 4c to 4c + 3 of row r of a group of this invocation's own, with what else there is in the terms.
fn exponents(c: u32, g: u32, r: u32, key: vec4<f32>) -> vec4<f32> {
    return within(c, load_q(q_start + min(rows_of(g)[r], q_last) * params.q_row, c) + key, LOWEST);
}

// The larger of what there is and of terms 4c to 4c + 3.
fn larger(than: PerRow, c: u32, key: vec4<f32>) -> PerRow {
    var all = than;
    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var r = 0u; r < 4u; r++) { // unroll
            let term = exponents(c, g, r, key);
            all[g][r] = max(all[g][r], max(max(term.x, term.y), max(term.z, term.w)));
        }
    }
    return all;
}

// The running maxima of features 4c to 4c + 3; the last is repeated.
fn maxima(base: u32, c: u32) -> vec4<f32> {
    var all: vec4<f32>;
    for (var f = 0u; f < 4u; f++) { // unroll
        all[f] = states[base + min(4u * c + f, FEATURES - 1u) * ROW + 1u].y;
    }
    return all;
}

fn mapped(c: u32, x: vec4<f32>) -> vec4<f32> {
    return within(c, x, LOWEST);
}

// Features 4c to 4c + 3 of the rows, times the exponential of the state's maxima; a vec4 holds one for each.
fn row_features(c: u32, base: u32) -> mat4x4<f32> {
    return terms(c, maxima(base, c));
}

// Terms relative to the rows' largest, of the rows that this invocation brings; at most 1, also for a row that the key does not
// count for.
fn terms(c: u32, key: vec4<f32>) -> mat4x4<f32> {
    var all = mapped_rows(c);
    let largest = row_maxima[left_group(0u)];
    for (var f = 0u; f < 4u; f++) { // unroll
        all[f] = exp(min(all[f] + key[f] - largest, vec4(0.0)));
    }
    return all;
}

fn finish(value: vec4<f32>, g: u32, r: u32) -> vec4<f32> {
    if (NORMALIZED) {
        // Where eps outweighs the sum beyond what f32 holds, the row is 0.
        let log_ratio = params.log_eps - row_max[g][r];
        let divisor = sum[g][r] + exp(min(log_ratio, 80.0));
        return value * (select(1.0, 0.0, log_ratio > 80.0) / divisor);
    }
    // In two steps, as exp(row_max) may overflow where its product with a small sum does not.
    let half = exp(0.5 * row_max[g][r]);
    return value * half * half;
}
