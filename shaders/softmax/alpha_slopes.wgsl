// The gradient of alpha by this row.
@group(0) @binding(18) var<storage, read_write> alpha_slopes: array<f32>; // [rows]

fn store_alpha_slope(own: f32) {
    alpha_slopes[params.alpha_slopes_start + row * params.alpha_slopes_stride] = own;
}
