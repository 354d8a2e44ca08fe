// Optional operand: a seed per row, in place of the key's lower word.
@group(0) @binding(4) var<storage, read> seeds: array<u32>; // [rows]

fn seed_of(row: u32, low: u32) -> u32 {
    return seeds[params.seeds_start + row * params.seeds_stride];
}
