// From lists of positive classes to a bit a class, set however often the class stands in the list, and a word more that says
// whether an index is no class.
//
// A workgroup owns a row: it clears the row's words, and then sets bits. Integers alone, whose order does not matter.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 256u;
const NO_CLASS: u32 = 0xffffffffu;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    classes: u32,
    width: u32, // indices of a row
    listed: u32, // indices of all rows
    first_row: u32, // of those whose bits are set
    bit_words: u32, // words of a row
    label_indices_start: u32, // starts and strides in elements
    label_indices_rows: u32,
    label_list_start: u32,
    label_offsets_start: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> label_bits: array<atomic<u32>>; // [rows, bit_words]

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let index = workgroup_index(workgroup_id, num_workgroups);
    if (index >= params.end_workgroup) {
        return;
    }
    let words = index * params.bit_words;
    let last = words + params.bit_words - 1u;
    for (var word = words + invocation; word <= last; word += WORKGROUP) {
        atomicStore(&label_bits[word], 0u);
    }
    storageBarrier();
    workgroupBarrier();

    let list = list_of(params.first_row + index);
    for (var at = list.x + invocation; at < list.y; at += WORKGROUP) {
        let label = label_at(at);
        if (label < params.classes) {
            atomicOr(&label_bits[words + label / 32u], 1u << (label % 32u));
        } else if (label != NO_CLASS) {
            atomicOr(&label_bits[last], 1u);
        }
    }
    if (list.y < list.x) {
        atomicOr(&label_bits[last], 1u);
    }
}
