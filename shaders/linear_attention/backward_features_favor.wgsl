// From the gradients of FAVOR+'s exponents w.x~ - |x~|^2 / 2 to those of x.
var<private> total: vec4<f32>;

fn begin_gradients() {
    total = total_gradient();
}

fn row_gradient(c: u32) -> mat4x4<f32> {
    let x4 = x_chunk(c);
    var sums = mat4x4(-x4[0] * total, -x4[1] * total, -x4[2] * total, -x4[3] * total);
    for (var f = 0u; f < FEATURE_CHUNKS; f++) {
        let own = gradients(f);
        for (var e = 0u; e < 4u; e++) { // unroll
            let w = load_projection(4u * f + e, c);
            sums += mat4x4(own[e] * w.x, own[e] * w.y, own[e] * w.z, own[e] * w.w);
        }
    }
    return params.input_scale * sums;
}
