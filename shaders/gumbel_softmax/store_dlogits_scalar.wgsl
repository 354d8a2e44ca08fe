// Four columns of dlogits, whose rows start at any element; nothing past a row's end.
@group(0) @binding(6) var<storage, read_write> dlogits: array<f32>; // [rows, columns]

fn store_dlogits(row: u32, chunk: u32, value: vec4<f32>) {
    let c = 4u * chunk;
    let at = params.dlogits_start + row * params.dlogits_rows + c;
    dlogits[at] = value.x;
    if (c + 1u < params.columns) { dlogits[at + 1u] = value.y; }
    if (c + 2u < params.columns) { dlogits[at + 2u] = value.z; }
    if (c + 3u < params.columns) { dlogits[at + 3u] = value.w; }
}
