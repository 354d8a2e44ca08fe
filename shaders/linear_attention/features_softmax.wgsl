// Logarithms of the softmax of each row over its dims.
var<private> largest: vec4<f32>;
var<private> log_sum: vec4<f32>; // of exp(x - largest)

fn begin_rows() {
    largest = dim(0u);
    for (var c = 1u; c < HEAD_DIM; c++) {
        largest = max(largest, dim(c));
    }
    var sum = vec4(0.0);
    for (var c = 0u; c < HEAD_DIM; c++) {
        sum += exp(dim(c) - largest);
    }
    log_sum = log(sum);
}

// Features 4c to 4c + 3 of the four rows. The difference of large numbers is taken first: it is exact.
fn row_features(c: u32) -> mat4x4<f32> {
    let x4 = x_block[c];
    return mat4x4(
        (x4[0] - largest) - log_sum,
        (x4[1] - largest) - log_sum,
        (x4[2] - largest) - log_sum,
        (x4[3] - largest) - log_sum,
    );
}
