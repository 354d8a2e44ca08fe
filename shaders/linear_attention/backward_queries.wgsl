// Rows are queries: each has a w of its own, and dw = -do.o / w.
@group(0) @binding(12) var<storage, read_write> numbers: array<vec4<f32>>; // [q_heads, rows of the round]: unit, 1 / w, -do.o, unit

var<private> factor: PerRow; // 1 / w
var<private> product: PerRow; // -do.o

fn take_rows(last_row: u32) {
    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var r = 0u; r < 4u; r++) { // unroll
            let own = numbers[numbers_at + min(rows_of(g)[r], last_row)];
            factor[g][r] = own.y;
            product[g][r] = own.z;
        }
    }
}

fn take_head(batch: u32, head: u32) {}

// Gradients of the weights of the keys from j on.
fn divided(products: PerScore, j: u32, last: u32) -> PerScore {
    var s = products;
    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var i = 0u; i < OWN_KEYS; i++) { // unroll
            s[i][g] = factor[g] * (s[i][g] + product[g]);
        }
    }
    return s;
}

// What the state's z adds to a gradient that its S has.
fn with_divisor(own: vec4<f32>, z: vec4<f32>, g: u32, r: u32) -> vec4<f32> {
    return factor[g][r] * fma(vec4(product[g][r]), z, own);
}

// What the row at a position counts in that.
fn divisor_weight(row: u32) -> f32 {
    return numbers[numbers_at + row].z;
}
