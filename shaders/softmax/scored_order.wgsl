// The order of scores of the row; where the scale is 0, all are one.
fn scored_order(found: vec4<f32>) -> vec4<u32> {
    let direction = params.scale * row_scale_of(row);
    let turned = select(found, -found, vec4(direction < 0.0));
    return select(order4(bitcast<vec4<u32>>(turned)), vec4(0x80000000u), vec4(direction == 0.0));
}
