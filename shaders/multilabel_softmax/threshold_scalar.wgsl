// Optional operand: a threshold for all classes, or one a class from any element on.
@group(0) @binding(4) var<storage, read> threshold: array<f32>; // [1] or [classes]

fn load_threshold(chunk: u32) -> vec4<f32> {
    let c = 4u * chunk;
    let at = params.threshold_start + c * params.threshold_stride;
    var x = vec4(threshold[at]);
    if (params.threshold_stride == 0u) {
        return x;
    }
    if (c + 1u < params.classes) { x.y = threshold[at + 1u]; }
    if (c + 2u < params.classes) { x.z = threshold[at + 2u]; }
    if (c + 3u < params.classes) { x.w = threshold[at + 3u]; }
    return x;
}
