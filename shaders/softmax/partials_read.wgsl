// The statistics of the row's splits, as the dispatch before has found them. Of a workspace's regions, a dispatch
// that writes one has all to be written.
@group(0) @binding(8) var<storage, read_write> partials: array<vec4<f32>>; // [rows, splits, 2]

fn store_partial(own: Statistics) {
}

fn load_partial(s: u32) -> Statistics {
    return unpacked(partials[2u * (row * params.splits + s)]);
}

fn load_scale() {
    let scales = partials[2u * row * params.splits + 1u];
    term = scales.x;
    scale = scales.y;
}
