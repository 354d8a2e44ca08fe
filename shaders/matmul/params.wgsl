// The sizes of a product, where its tensors lie, and the tiles of a dispatch.
struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    matrices: u32, // batch * heads
    heads: u32,
    m: u32,
    n: u32,
    n_chunks: u32, // ceil(n / 4)
    k: u32,
    range_k: u32, // k of a range: of the last, up to so many
    ranges: u32, // of k, whose sums combine.wgsl adds
    row_tiles: u32, // ceil(m / rows of a tile)
    column_tiles: u32, // ceil(n / columns of a tile)
    a_start: u32, // starts and strides in elements
    a_batch: u32,
    a_head: u32,
    a_m: u32,
    a_k: u32,
    b_start: u32,
    b_batch: u32,
    b_head: u32,
    b_k: u32,
    b_n: u32,
    c_start: u32,
    c_batch: u32,
    c_head: u32,
    c_m: u32,
    bias_start: u32,
    bias_batch: u32,
    bias_head: u32,
    bias_m: u32,
    dc_start: u32,
    dc_batch: u32,
    dc_head: u32,
    dc_m: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
