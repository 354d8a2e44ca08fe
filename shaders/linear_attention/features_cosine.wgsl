// [1, x / max(|x|, 1e-6)]: their products are 1 plus a cosine.
var<private> norm: vec4<f32>;

fn begin_rows() {
    var squares = vec4(0.0);
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        let x4 = x_chunk(c);
        squares += (x4[0] * x4[0] + x4[1] * x4[1]) + (x4[2] * x4[2] + x4[3] * x4[3]);
    }
    norm = max(sqrt(squares), vec4(1.0e-6));
}

// Features 4c to 4c + 3 of the four rows: feature f is dim f - 1.
fn row_features(c: u32) -> mat4x4<f32> {
    var first = vec4(1.0);
    if (c > 0u) {
        first = x_chunk(c - 1u)[3] / norm;
    }
    var x4 = mat4x4<f32>();
    if (c < HEAD_CHUNKS) {
        x4 = x_chunk(c);
    }
    return mat4x4(first, x4[0] / norm, x4[1] / norm, x4[2] / norm);
}
