// Optional output: how many p of the row are above 0.
@group(0) @binding(17) var<storage, read_write> support: array<u32>; // [rows]

fn store_support(count: u32) {
    support[params.support_start + row * params.support_stride] = count;
}
