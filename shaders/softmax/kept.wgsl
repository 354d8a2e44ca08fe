// Of each row, top_k.wgsl has found the order of the last score that is kept, and its column.
fn keeps(found: vec4<f32>, columns: vec4<u32>) -> vec4<bool> {
    let last = numbers[2u * row + 1u].zw;
    let order = scored_order(found);
    return (order > vec4(last.x)) | ((order == vec4(last.x)) & (columns <= vec4(last.y)));
}
