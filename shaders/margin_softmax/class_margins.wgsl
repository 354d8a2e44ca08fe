// Optional operand: a margin for each class.
@group(0) @binding(5) var<storage, read> class_margins: array<f32>; // [classes]

fn margin_of(row: u32, own_class: u32) -> f32 {
    return class_margins[params.class_margins_start + own_class * params.class_margins_stride];
}
