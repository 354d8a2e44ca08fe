// Columns that the mask leaves in each split of the row, as count.wgsl has found them. Of a workspace's regions, a
// dispatch that writes one has all to be written.
@group(0) @binding(9) var<storage, read_write> counts: array<u32>; // [rows, splits]

fn counted(own: u32) -> u32 {
    return counts[row * params.splits + own];
}
