// From the gradients of the logarithms of a softmax to those of what it is of.
var<private> total: vec4<f32>;

fn begin_gradients() {
    total = total_gradient();
}

fn row_gradient(c: u32) -> mat4x4<f32> {
    let logs = row_features(c);
    let own = gradients(c);
    return mat4x4(
        own[0] - exp(logs[0]) * total,
        own[1] - exp(logs[1]) * total,
        own[2] - exp(logs[2]) * total,
        own[3] - exp(logs[3]) * total,
    );
}
