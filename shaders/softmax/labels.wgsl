// Optional operand: the label of each row, 2^32 - 1 where it has none.
@group(0) @binding(13) var<storage, read> labels: array<u32>; // [rows]

fn label_of() -> u32 {
    return labels[params.labels_start + row * params.labels_stride];
}
