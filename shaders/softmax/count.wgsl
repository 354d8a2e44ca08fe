// Counts the columns that the mask leaves in each split of each row, where the scale takes their number.
//
// A workgroup owns a split, an invocation every WORKGROUP-th word of its mask.
// Workgroup memory: 4 * WORKGROUP bytes. Features: none.
const WORKGROUP: u32 = 256u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    columns: u32,
    splits: u32, // of a row
    split_columns: u32,
    mask_start: u32, // start and stride in elements
    mask_rows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> mask: array<u32>; // [rows, columns], four bytes a word
@group(0) @binding(9) var<storage, read_write> counts: array<u32>; // [rows, splits]

var<workgroup> shared_counts: array<u32, WORKGROUP>;

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
    let first = params.mask_start + workgroup / params.splits * params.mask_rows;
    let begin = first + workgroup % params.splits * params.split_columns;
    let end = first + min(begin - first + params.split_columns, params.columns);

    // Words that the split has bytes in.
    var own = 0u;
    for (var at = begin / 4u + invocation; at < (end + 3u) / 4u; at += WORKGROUP) {
        let bytes = vec4(4u * at) + vec4(0u, 1u, 2u, 3u);
        let seen = (vec4(mask[at]) & vec4(0xffu, 0xff00u, 0xff0000u, 0xff000000u)) != vec4(0u);
        let ones = select(vec4(0u), vec4(1u), seen & (bytes >= vec4(begin)) & (bytes < vec4(end)));
        own += ones.x + ones.y + ones.z + ones.w;
    }

    // All invocations.
    shared_counts[invocation] = own;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (invocation < half) {
            own += shared_counts[invocation + half];
            shared_counts[invocation] = own;
        }
    }
    if (invocation == 0u) {
        counts[workgroup] = own;
    }
}
