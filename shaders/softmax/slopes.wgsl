// The gradient of row_scale by this row, or by this split of it.
@group(0) @binding(10) var<storage, read_write> slopes: array<f32>; // [rows, splits]

fn store_slope() {
    let all = sum_over_lanes(slope);
    if (is_own && lane == 0u) {
        slopes[params.slopes_start + index * params.slopes_stride] = term * all;
    }
}
