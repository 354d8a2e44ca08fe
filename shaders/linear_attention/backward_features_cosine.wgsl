// From the gradients of [1, x / |x|] to those of x: what lies along x goes, unless the norm is held at its least.
var<private> along: vec4<f32>; // x . gradient / |x|

fn begin_gradients() {
    along = vec4(0.0);
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        let x4 = x_chunk(c);
        let own = of_dims(c);
        along += (x4[0] * own[0] + x4[1] * own[1]) + (x4[2] * own[2] + x4[3] * own[3]);
    }
    along = select(vec4(0.0), along / norm, norm > vec4(1.0e-6));
}

// Those of dims 4c to 4c + 3: feature f is dim f - 1.
fn of_dims(c: u32) -> mat4x4<f32> {
    let own = gradients(c);
    var next = vec4(0.0);
    if (c + 1u < FEATURE_CHUNKS) {
        next = gradients(c + 1u)[0];
    }
    return mat4x4(own[1], own[2], own[3], next);
}

fn row_gradient(c: u32) -> mat4x4<f32> {
    let x4 = x_chunk(c);
    let own = of_dims(c);
    return mat4x4(
        (own[0] - x4[0] / norm * along) / norm,
        (own[1] - x4[1] / norm * along) / norm,
        (own[2] - x4[2] / norm * along) / norm,
        (own[3] - x4[3] / norm * along) / norm,
    );
}
