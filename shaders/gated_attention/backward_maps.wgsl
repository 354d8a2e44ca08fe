// Takes gradients of queries and keys through the affine maps of z: dz = sum of gamma * d over the maps, and for those of the maps sums
// over tokens of d * z and of d, where d is what ranges add up to.
//
// One workgroup owns ROWS_OF_GROUP rows of one head, over all batches; COLUMNS invocations a row at a time, four dims each.
// Workgroup memory: 128 * WORKGROUP bytes. Features: none.
// Source: Hua et al., "Transformer Quality in Linear Time", 2022, section 3.2.
const WORKGROUP: u32 = 64u;
const COLUMNS: u32 = 32u; // a power of two
const KEY_DIM: u32 = 128u;
const HAS_Q: bool = true; // which maps' gradients there are
const HAS_K: bool = true;
const HAS_Q_LIN: bool = false;
const HAS_K_LIN: bool = false;

const KEY_CHUNKS: u32 = (KEY_DIM + 3u) / 4u;
const RESULT_DIM: u32 = KEY_DIM;
const HEIGHT: u32 = WORKGROUP / COLUMNS;
const_assert COLUMNS >= KEY_CHUNKS && WORKGROUP % COLUMNS == 0u;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    q_heads: u32,
    len: u32, // tokens
    rows: u32, // batch * len
    rows_of_group: u32,
    groups: u32, // of a head
    partial_rows: u32, // of all heads
    q_first: u32, // where the gradients of each side start, and how many ranges there are to add up
    q_splits: u32,
    k_first: u32,
    k_splits: u32,
    q_lin_first: u32,
    k_lin_first: u32,
    q_start: u32, // of z; starts and strides in elements
    q_batch: u32,
    q_head: u32,
    q_row: u32,
    gradient_start: u32,
    gradient_batch: u32,
    gradient_head: u32,
    gradient_row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(7) var<storage, read_write> map_sums: array<vec4<f32>>; // [map, gamma or beta, head, groups, key_dim / 4]
@group(0) @binding(11) var<storage, read_write> partials: array<vec4<f32>>; // [side, splits, batch, heads, len, key_dim / 4]

var<workgroup> shared_sums: array<array<vec4<f32>, WORKGROUP>, 8>;

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
    let head = workgroup / params.groups;
    let group = workgroup % params.groups;
    let column = invocation % COLUMNS;
    let c = min(column, KEY_CHUNKS - 1u);

    // Rows, HEIGHT at a time.
    var sums: array<vec4<f32>, 8>;
    let first = group * params.rows_of_group;
    let end = min(first + params.rows_of_group, params.rows);
    for (var row = first + invocation / COLUMNS; row < end; row += HEIGHT) {
        let batch = row / params.len;
        let i = row % params.len;
        let place = ((batch * params.q_heads + head) * params.len + i) * KEY_CHUNKS + c;
        let z4 = load_q(params.q_start + batch * params.q_batch + head * params.q_head + i * params.q_row, c);
        var dz = vec4(0.0);
        if (HAS_Q) {
            let d = side(params.q_first + place, params.q_splits);
            sums[0] += seen(d, z4);
            sums[1] += d;
            dz += affine_gamma(Q_MAP, head, c) * d;
        }
        if (HAS_K) {
            let d = side(params.k_first + place, params.k_splits);
            sums[2] += seen(d, z4);
            sums[3] += d;
            dz += affine_gamma(K_MAP, head, c) * d;
        }
        if (HAS_Q_LIN) {
            let d = partials[params.q_lin_first + place];
            sums[4] += seen(d, z4);
            sums[5] += d;
            dz += affine_gamma(Q_LIN_MAP, head, c) * d;
        }
        if (HAS_K_LIN) {
            let d = partials[params.k_lin_first + place];
            sums[6] += seen(d, z4);
            sums[7] += d;
            dz += affine_gamma(K_LIN_MAP, head, c) * d;
        }
        if (column < KEY_CHUNKS) {
            let base = params.gradient_start + batch * params.gradient_batch + head * params.gradient_head + i * params.gradient_row;
            store_gradient(base, c, dz);
        }
    }

    // Sums of the rows that stood side by side, first to last.
    for (var m = 0u; m < 8u; m++) { // unroll
        shared_sums[m][invocation] = sums[m];
    }
    workgroupBarrier();
    if (invocation < KEY_CHUNKS) {
        for (var m = 0u; m < 8u; m++) { // unroll
            var sum = vec4(0.0);
            for (var r = 0u; r < HEIGHT; r++) { // unroll
                sum += shared_sums[m][r * COLUMNS + invocation];
            }
            map_sums[((m * params.q_heads + head) * params.groups + group) * KEY_CHUNKS + invocation] = sum;
        }
    }
}

// What ranges add up to, first to last.
fn side(place: u32, splits: u32) -> vec4<f32> {
    var sum = vec4(0.0);
    for (var s = 0u; s < splits; s++) {
        sum += partials[place + s * params.partial_rows * KEY_CHUNKS];
    }
    return sum;
}

// d z, but 0 of a row that meets no other, whatever its z is.
fn seen(d: vec4<f32>, z: vec4<f32>) -> vec4<f32> {
    return select(d * z, vec4(0.0), d == vec4(0.0));
}
