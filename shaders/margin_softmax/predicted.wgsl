// Optional output: the class of the largest logit; none where one is NaN.
@group(0) @binding(6) var<storage, read_write> predicted: array<u32>; // [rows]

fn store_predicted(row: u32, bits: u32) {
    var number = NONE;
    if (bits != NONE) {
        number = number_of(bits);
    }
    predicted[params.predicted_start + row * params.predicted_stride] = number;
}
