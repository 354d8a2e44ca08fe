// Labels: a byte a class, zero is negative.
@group(0) @binding(2) var<storage, read> labels: array<u32>; // [rows, classes], four bytes a word

fn load_labels(row: u32, chunk: u32) -> vec4<f32> {
    let c = 4u * chunk;
    let at = params.labels_start + row * params.labels_rows + c;
    if (VEC4) {
        let bytes = vec4(labels[at / 4u]) & vec4(0xffu, 0xff00u, 0xff0000u, 0xff000000u);
        return select(vec4(0.0), vec4(1.0), bytes != vec4(0u));
    }
    var x = vec4(label_byte(at), 0.0, 0.0, 0.0);
    if (c + 1u < params.classes) { x.y = label_byte(at + 1u); }
    if (c + 2u < params.classes) { x.z = label_byte(at + 2u); }
    if (c + 3u < params.classes) { x.w = label_byte(at + 3u); }
    return x;
}

fn label_byte(at: u32) -> f32 {
    return select(0.0, 1.0, ((labels[at / 4u] >> (8u * (at % 4u))) & 0xffu) != 0u);
}

fn labels_are_broken(row: u32) -> bool {
    return false;
}
