// Logarithms of the softmax of each row over its dims.
var<private> largest: vec4<f32>;
var<private> log_sum: vec4<f32>; // of exp(x - largest)

fn begin_rows() {
    largest = x_chunk(0u)[0];
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        let x4 = x_chunk(c);
        for (var e = 0u; e < 4u; e++) { // unroll
            if (4u * c + e < HEAD_DIM) {
                largest = max(largest, x4[e]);
            }
        }
    }
    var sum = vec4(0.0);
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        let x4 = x_chunk(c);
        for (var e = 0u; e < 4u; e++) { // unroll
            if (4u * c + e < HEAD_DIM) {
                sum += exp(x4[e] - largest);
            }
        }
    }
    log_sum = log(sum);
}

// Features 4c to 4c + 3 of the four rows. The difference of large numbers is taken first: it is exact.
fn row_features(c: u32) -> mat4x4<f32> {
    let x4 = x_chunk(c);
    return mat4x4(
        (x4[0] - largest) - log_sum,
        (x4[1] - largest) - log_sum,
        (x4[2] - largest) - log_sum,
        (x4[3] - largest) - log_sum,
    );
}
