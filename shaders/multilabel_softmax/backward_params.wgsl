// What the kernel of classes' gradients takes.
struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    classes: u32,
    first_row: u32, // of those whose label bits are there, and the row after the last
    end_row: u32,
    parts: u32, // of a row, each a workgroup's
    rows_of_a_workgroup: u32,
    first_sum: u32, // sums over rows before those of these rows
    bit_words: u32, // words of a row's label bits
    fixed_threshold: f32,
    scores_start: u32, // starts and strides in elements
    scores_rows: u32,
    labels_start: u32,
    labels_rows: u32,
    soft_labels_start: u32,
    soft_labels_rows: u32,
    mask_start: u32,
    mask_rows: u32,
    threshold_start: u32,
    threshold_stride: u32, // 0 where all classes have one
    dscores_start: u32,
    dscores_rows: u32,
    dsoft_labels_start: u32,
    dsoft_labels_rows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
