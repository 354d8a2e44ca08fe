// Rows under an exponential map: q holds exponents, and a pair's weight is the sum of exp(q_f + k_f). What a row
// has summed is relative to exp(row_max), the largest term it has met.
const LOWEST: f32 = -1.0e38; // the exponent of nothing; sums and differences of two such stay finite

var<private> row_max: vec4<f32>;

fn query_features(chunk: u32, x: vec4<f32>) -> vec4<f32> {
    return within(chunk, x, LOWEST);
}

fn add_state(base: u32) {
    let last = base + (FEATURES - 1u) * ROW;
    row_max = vec4(LOWEST);
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        row_max = max(row_max, largest(load_rows(c), maxima(base + 4u * c * ROW, last)));
    }
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        let at = base + 4u * c * ROW;
        let w = exponentials(load_rows(c), maxima(at, last));
        add_features(w[0], w[1], w[2], w[3], at, last);
    }
}

// The running maxima of four features.
fn maxima(at: u32, last: u32) -> vec4<f32> {
    return vec4(
        states[min(at, last) + 1u].y,
        states[min(at + ROW, last) + 1u].y,
        states[min(at + 2u * ROW, last) + 1u].y,
        states[min(at + 3u * ROW, last) + 1u].y,
    );
}

// The largest of four exponents, for each row.
fn largest(q4: mat4x4<f32>, key: vec4<f32>) -> vec4<f32> {
    return max(max(q4[0] + key.x, q4[1] + key.y), max(q4[2] + key.z, q4[3] + key.w));
}

// Four terms relative to the rows' largest; at most 1, also for a row that the key does not count for.
fn exponentials(q4: mat4x4<f32>, key: vec4<f32>) -> mat4x4<f32> {
    let zero = vec4(0.0);
    return mat4x4(
        exp(min(q4[0] + key.x - row_max, zero)),
        exp(min(q4[1] + key.y - row_max, zero)),
        exp(min(q4[2] + key.z - row_max, zero)),
        exp(min(q4[3] + key.w - row_max, zero)),
    );
}

fn finish(o4: mat4x4<f32>) -> mat4x4<f32> {
    if (NORMALIZED) {
        // Where eps outweighs the sum beyond what f32 holds, the row is 0.
        let log_ratio = params.log_eps - row_max;
        let divisor = sum + exp(min(log_ratio, vec4(80.0)));
        let factor = select(vec4(1.0), vec4(0.0), log_ratio > vec4(80.0)) / divisor;
        return mat4x4(o4[0] * factor, o4[1] * factor, o4[2] * factor, o4[3] * factor);
    }
    // In two steps, as exp(row_max) may overflow where its product with a small sum does not.
    let half = exp(0.5 * row_max);
    return mat4x4(o4[0] * half * half, o4[1] * half * half, o4[2] * half * half, o4[3] * half * half);
}
