// What each row's label says, and what is found of its class; in the workspace.
struct Target {
    label: u32,
    is_class: u32, // whether it is one, whose weight and margin mean something
    weight: f32,
    margin: f32, // where a tensor holds it
    cosine: f32, // these two are found where the row's logits pass
    bias: f32,
}

const NONE: u32 = 0xffffffffu; // no label

// Declared to be written, as all of the workspace is: wgpu binds a buffer to be read or to be written as a whole.
@group(0) @binding(1) var<storage, read_write> targets: array<Target>; // [rows]

fn is_finite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u;
}
