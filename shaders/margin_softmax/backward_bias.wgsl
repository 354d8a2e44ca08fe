// The gradient of the bias from its sums over some rows each, in their order, after what the chunks before have left.
//
// One invocation owns four classes, from a multiple of four on: in 16 bits, whole words. Of listed classes, whoever owns the first
// in a word has both.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;
const SAMPLED: bool = false; // whether classes are listed

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    first_class: u32,
    chunk_classes: u32,
    all_classes: u32, // listed or not
    groups: u32,
    row_products: u32, // from the sums of one group to those of the next
    first: u32, // whether these are the first rows, and whether they are the last
    last: u32,
    dbias_start: u32, // in elements
    dbias_stride: u32,
    sampled_start: u32,
    sampled_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> bias_sums: array<f32>; // [groups, row_products]
@group(0) @binding(2) var<storage, read_write> bias_totals: array<f32>; // [row_products]
@group(0) @binding(3) var<storage, read_write> dbias: array<f32>; // [classes]

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    if (workgroup >= params.end_workgroup) {
        return;
    }
    let four = (params.first_class / 4u + workgroup * WORKGROUP + invocation) * 4u;
    var place = max(four, params.first_class);
    place += select(0u, 1u, follows_in_word(place));
    for (; place < four + 4u || (place == four + 4u && follows_in_word(place)); place++) {
        let own_class = place - params.first_class;
        if (own_class >= params.chunk_classes) {
            return;
        }
        var sum = select(bias_totals[own_class], 0.0, params.first == 1u);
        for (var group = 0u; group < params.groups; group++) {
            sum += bias_sums[group * params.row_products + own_class];
        }
        let number = number_of(place);
        if (params.last == 0u) {
            bias_totals[own_class] = sum;
        } else if (number < params.all_classes) {
            dbias[params.dbias_start + number * params.dbias_stride] = sum;
        }
    }
}

// Whether a listed class shares a word of 16 bits with the one before it.
fn follows_in_word(place: u32) -> bool {
    if (!SAMPLED || place <= params.first_class || place - params.first_class >= params.chunk_classes) {
        return false;
    }
    return number_of(place) / 2u == number_of(place - 1u) / 2u;
}
