// The gradient of a loss with respect to y, four columns of a row that starts at any element; only what is seen is read.
@group(0) @binding(5) var<storage, read> dy: array<f32>; // [rows, columns]

fn load_dy4(row: Row, chunk: u32, see: vec4<bool>) -> vec4<f32> {
    let at = params.dy_start + row.index * params.dy_rows + 4u * chunk;
    var x = vec4(0.0);
    if (see.x) { x.x = dy[at]; }
    if (see.y) { x.y = dy[at + 1u]; }
    if (see.z) { x.z = dy[at + 2u]; }
    if (see.w) { x.w = dy[at + 3u]; }
    return x;
}
