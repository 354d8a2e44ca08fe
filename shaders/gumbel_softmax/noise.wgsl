// Optional output: the noise of every class, of those that take no part as well.
@group(0) @binding(7) var<storage, read_write> noise: array<f32>; // [rows, columns]

fn put_noise(row: Row, chunk: u32) {
    let c = 4u * chunk;
    let at = params.noise_start + row.index * params.noise_rows + c;
    let g = gumbel4(row, chunk);
    noise[at] = g.x;
    if (c + 1u < params.columns) { noise[at + 1u] = g.y; }
    if (c + 2u < params.columns) { noise[at + 2u] = g.z; }
    if (c + 3u < params.columns) { noise[at + 3u] = g.w; }
}
