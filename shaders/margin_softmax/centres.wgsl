// Products by the norms of four classes: of each, that of the centre where it is largest; one that is NaN shows.
@group(0) @binding(3) var<storage, read_write> products: array<f32>; // [chunk_rows, row_products], the first class first
@group(0) @binding(4) var<storage, read_write> class_norms: array<f32>; // [row_products], inverse

fn cosines_of(chunk_row: u32, first: u32) -> vec4<f32> {
    return vec4(
        largest_of(chunk_row, first),
        largest_of(chunk_row, first + 1u),
        largest_of(chunk_row, first + 2u),
        largest_of(chunk_row, first + 3u),
    );
}

fn largest_of(chunk_row: u32, number: u32) -> f32 {
    let begin = (clamp(number, params.first_class, params.end_class - 1u) - params.first_class) * CENTRES;
    let base = chunk_row * params.row_products;
    var largest = LOWEST;
    var probe = 0u;
    for (var i = begin; i < begin + CENTRES; i++) {
        var own = products[base + i];
        if (NORMALIZE) {
            own *= class_norms[i];
        }
        largest = max(largest, own);
        probe |= select(bitcast<u32>(own), 0u, is_finite(own));
    }
    return select(bitcast<f32>(probe), largest, probe == 0u);
}
