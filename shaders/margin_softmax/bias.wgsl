// Optional operand: what is added to each class's logit.
@group(0) @binding(6) var<storage, read> bias: array<f32>; // [classes]

fn biases_of(first: u32, inside: vec4<bool>) -> vec4<f32> {
    var four = vec4(0.0);
    if (inside.x) { four.x = bias_of(first); }
    if (inside.y) { four.y = bias_of(first + 1u); }
    if (inside.z) { four.z = bias_of(first + 2u); }
    if (inside.w) { four.w = bias_of(first + 3u); }
    return four;
}

fn bias_of(place: u32) -> f32 {
    return bias[params.bias_start + min(number_of(place), params.all_classes - 1u) * params.bias_stride];
}
