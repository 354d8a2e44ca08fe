// Optional output: the class of the largest logit; none where one is NaN.
@group(0) @binding(6) var<storage, read_write> predicted: array<u32>; // [rows]

fn store_predicted(row: u32, bits: u32) {
    predicted[params.predicted_start + row * params.predicted_stride] = bits;
}
