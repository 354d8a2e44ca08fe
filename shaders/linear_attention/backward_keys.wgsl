// Rows are keys, which see queries that are divided, each by its own w.
@group(0) @binding(12) var<storage, read_write> numbers: array<vec4<f32>>; // [q_heads, rows of the round]: unit, 1 / w, -do.o, unit

fn take_rows(last_row: u32) {}

fn take_head(batch: u32, head: u32) {
    numbers_at = params.numbers_start + batch * params.numbers_batch + head * params.numbers_head;
}

// Gradients of the weights in the queries from j on.
fn divided(products: PerScore, j: u32, last: u32) -> PerScore {
    var s = products;
    for (var i = 0u; i < OWN_KEYS; i++) { // unroll
        let other = numbers[numbers_at + min(j + key_of(i), last)];
        for (var g = 0u; g < GROUPS; g++) { // unroll
            s[i][g] = other.y * (s[i][g] + other.z);
        }
    }
    return s;
}

// What the state's h adds to a gradient that its G has.
fn with_divisor(own: vec4<f32>, z: vec4<f32>, g: u32, r: u32) -> vec4<f32> {
    return own + z;
}

fn divisor_weight(row: u32) -> f32 {
    return 1.0;
}
