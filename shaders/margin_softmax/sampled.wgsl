// Optional operand: some classes are listed, and those alone take part; a class is known by its place in the list.
@group(0) @binding(8) var<storage, read> sampled: array<u32>; // [sampled]

fn number_of(place: u32) -> u32 {
    return sampled[params.sampled_start + place * params.sampled_stride];
}
