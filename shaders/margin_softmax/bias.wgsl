// Optional operand: what is added to each class's logit.
@group(0) @binding(6) var<storage, read> bias: array<f32>; // [classes]

fn biases_of(first: u32, inside: vec4<bool>) -> vec4<f32> {
    let at = params.bias_start + first * params.bias_stride;
    var four = vec4(0.0);
    if (inside.x) { four.x = bias[at]; }
    if (inside.y) { four.y = bias[at + params.bias_stride]; }
    if (inside.z) { four.z = bias[at + 2u * params.bias_stride]; }
    if (inside.w) { four.w = bias[at + 3u * params.bias_stride]; }
    return four;
}
