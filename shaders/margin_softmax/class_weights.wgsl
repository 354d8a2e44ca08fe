// Optional operand: how much the rows of each class count.
@group(0) @binding(4) var<storage, read> class_weights: array<f32>; // [classes]

fn weight_of(own_class: u32) -> f32 {
    return class_weights[params.class_weights_start + own_class * params.class_weights_stride];
}
