// Divides a row by the sum of its weights plus eps, where normalised.
fn finish(o4: mat4x4<f32>) -> mat4x4<f32> {
    if (!NORMALIZED) {
        return o4;
    }
    let divisor = sum + params.eps;
    return mat4x4(o4[0] / divisor, o4[1] / divisor, o4[2] / divisor, o4[3] / divisor);
}
