// Logarithms of the softmax of each row over its dims.
var<private> log_sum: vec4<f32>;

fn begin_rows() {
    var largest = dim(0u);
    for (var c = 1u; c < HEAD_DIM; c++) {
        largest = max(largest, dim(c));
    }
    var sum = vec4(0.0);
    for (var c = 0u; c < HEAD_DIM; c++) {
        sum += exp(dim(c) - largest);
    }
    log_sum = largest + log(sum);
}

// Features 4c to 4c + 3 of the four rows.
fn row_features(c: u32) -> mat4x4<f32> {
    let x4 = x_block[c];
    return mat4x4(x4[0] - log_sum, x4[1] - log_sum, x4[2] - log_sum, x4[3] - log_sum);
}
