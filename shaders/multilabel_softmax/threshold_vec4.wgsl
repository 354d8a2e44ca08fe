// Optional operand: a threshold a class, four at a time from a multiple of four.
@group(0) @binding(4) var<storage, read> threshold: array<Elem>; // [classes]

fn load_threshold(chunk: u32) -> vec4<f32> {
    return threshold[params.threshold_start / 4u + chunk];
}
