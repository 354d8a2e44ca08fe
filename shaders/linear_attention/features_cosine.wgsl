// [1, x / max(|x|, 1e-6)]: their products are 1 plus a cosine.
var<private> norm: vec4<f32>;

fn begin_rows() {
    var squares = vec4(0.0);
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        let x4 = x_block[c];
        squares += (x4[0] * x4[0] + x4[1] * x4[1]) + (x4[2] * x4[2] + x4[3] * x4[3]);
    }
    norm = max(sqrt(squares), vec4(1.0e-6));
}

// Features 4c to 4c + 3 of the four rows: feature f is dim f - 1.
fn row_features(c: u32) -> mat4x4<f32> {
    var first = vec4(1.0);
    if (c > 0u) {
        first = dim(4u * c - 1u) / norm;
    }
    return mat4x4(
        first,
        dim(4u * c) / norm,
        dim(4u * c + 1u) / norm,
        dim(4u * c + 2u) / norm,
    );
}
