// Products by the norms of four classes, each with one centre.
@group(0) @binding(3) var<storage, read_write> products: array<vec4<f32>>; // [chunk_rows, row_products], from a multiple of four classes on
@group(0) @binding(4) var<storage, read_write> class_norms: array<vec4<f32>>; // [row_products], inverse

fn cosines_of(chunk_row: u32, first: u32) -> vec4<f32> {
    let chunk = first / 4u - params.first_class / 4u;
    let own = products[chunk_row * (params.row_products / 4u) + chunk];
    if (NORMALIZE) {
        return own * class_norms[chunk];
    }
    return own;
}
