// Columns that the mask leaves in each split of the row, as count.wgsl has found them. Of a workspace's regions, a
// dispatch that writes one has all to be written.
@group(0) @binding(9) var<storage, read_write> counts: array<u32>; // [rows, splits]

// Columns of the row that the mask leaves. An f32 counts to 2^24: the number passes in two halves of 16 bits.
fn visible_columns() -> u32 {
    var n = 0u;
    for (var s = lane; s < params.splits; s += LANES) {
        n += counts[row * params.splits + s];
    }
    let halves = sums_over_lanes(vec4(f32(n & 0xffffu), f32(n >> 16u), 0.0, 0.0));
    return u32(halves.x) + (u32(halves.y) << 16u);
}
