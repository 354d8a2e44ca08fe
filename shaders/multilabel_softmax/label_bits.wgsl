// Labels: the bits that set_bits.wgsl has made of lists, a bit a class.
@group(0) @binding(2) var<storage, read_write> label_bits: array<u32>; // [rows, bit_words]

fn load_labels(row: u32, chunk: u32) -> vec4<f32> {
    let word = label_bits[(row - params.first_row) * params.bit_words + chunk / 8u];
    let bits = vec4(word >> (4u * (chunk % 8u))) & vec4(1u, 2u, 4u, 8u);
    return select(vec4(0.0), vec4(1.0), bits != vec4(0u));
}

// Whether the row's list had an index that is no class, as the last word says.
fn labels_are_broken(row: u32) -> bool {
    return label_bits[(row - params.first_row + 1u) * params.bit_words - 1u] != 0u;
}
