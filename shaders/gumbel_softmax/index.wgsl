// Optional output: the class drawn, NONE where no class takes part.
@group(0) @binding(6) var<storage, read_write> index: array<u32>; // [rows]

fn put_index(row: u32, drawn: u32) {
    index[params.index_start + row * params.index_stride] = drawn;
}
