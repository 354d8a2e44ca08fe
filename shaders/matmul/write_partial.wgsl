// The end of a product over one range of k: its sums, for combine.wgsl. Columns past the last may lie in the last vec4.
@group(0) @binding(5) var<storage, read_write> partials: array<vec4<f32>>; // [slices, m, n_chunks]

fn write_sums(slice: u32, row: u32, column: u32, sums: vec4<f32>) {
    if (row < params.m && column < params.n) {
        partials[(slice * params.m + row) * params.n_chunks + column / 4u] = sums;
    }
}
