// What rows have of their own, as gather.wgsl has left it. Of a workspace's regions, a dispatch that writes one has all to be written.
@group(0) @binding(15) var<storage, read_write> numbers: array<vec4<u32>>; // [rows, 2]

fn row_scale_of(own: u32) -> f32 {
    return bitcast<f32>(numbers[2u * own].x);
}

fn alpha_of() -> f32 {
    return bitcast<f32>(numbers[2u * row].y);
}

fn label_of() -> u32 {
    return numbers[2u * row].z;
}

fn dloss_of() -> f32 {
    return bitcast<f32>(numbers[2u * row].w);
}

fn dlse_of() -> f32 {
    return bitcast<f32>(numbers[2u * row + 1u].x);
}

fn dentropy_of() -> f32 {
    return bitcast<f32>(numbers[2u * row + 1u].y);
}
