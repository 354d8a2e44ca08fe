// The gradient of the bias is wanted: its sums over WALKED rows each.
@group(0) @binding(5) var<storage, read_write> bias_sums: array<f32>; // [groups, row_products]

fn store_bias_sum(group: u32, own_class: u32, sum: f32) {
    bias_sums[group * params.row_products + own_class] = sum;
}
