// Columns of the row that the mask leaves, counted here. An f32 counts to 2^24, which no row is wider than that is not split.
fn visible_columns() -> u32 {
    var n = 0u;
    for (var first = 0u; first < params.columns; first += 4u * LANES) {
        let columns = columns_of(first);
        let left = mask_at(min(columns, vec4(params.columns - 1u)));
        let ones = select(vec4(0u), vec4(1u), left & (columns < vec4(params.columns)));
        n += ones.x + ones.y + ones.z + ones.w;
    }
    return u32(sum_over_lanes(f32(n)));
}
