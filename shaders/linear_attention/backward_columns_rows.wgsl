// Gradients of Efficient Attention's queries: `beside` holds the logarithm of their softmax, and a state's features are divided by their sums.
fn take_own(last_row: u32) {}

fn state_factor(r: u32, c: u32, z: vec4<f32>, maximum: vec4<f32>) -> vec4<f32> {
    // 0 where there is no key.
    return select(1.0 / z, vec4(0.0), z == vec4(0.0));
}

fn value_of(x: vec4<f32>) -> vec4<f32> {
    return x;
}

fn through_map(gradient: vec4<f32>, row: u32, chunk: u32) -> vec4<f32> {
    return gradient * exp(load_beside(beside_at + row * params.beside_row, chunk));
}
