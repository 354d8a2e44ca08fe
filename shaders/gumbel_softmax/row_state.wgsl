// Rows as prepare.wgsl and top_k.wgsl left them. One dispatch binds the workspace in one way.
@group(0) @binding(1) var<storage, read_write> row_state: array<vec4<u32>>; // [rows, 2]

fn load_row(index: u32) -> Row {
    let a = row_state[2u * index];
    let b = row_state[2u * index + 1u];
    let tau = bitcast<f32>(select(0x3f800000u, b.y, b.y != 0u));
    return Row(index, a.xy, a.z, a.w, b.x, tau, select(0u, NAN, b.y == 0u), b.z, b.w);
}

fn keeps(row: Row, bits: vec4<u32>, chunk: u32) -> vec4<bool> {
    let rank = order4(bits);
    let columns = vec4(4u * chunk) + vec4(0u, 1u, 2u, 3u);
    return (rank > vec4(row.threshold)) | ((rank == vec4(row.threshold)) & (columns <= vec4(row.last)));
}
