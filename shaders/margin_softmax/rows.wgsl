// From the products of a chunk of rows and classes to what an online softmax keeps of each row.
//
// LANES invocations own a row of the chunk, or one of its splits, and take every LANESth four of classes; fours begin at multiples
// of four of all classes. Their states are put together in workgroup memory, and then with what the row's chunks before have left in
// the workspace. The target's logit is in no sum: its cosine is left in the workspace, by whoever meets it.
// Workgroup memory: 32 * WORKGROUP bytes. Features: none.
// Source: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018, section 3.1.
const WORKGROUP: u32 = 256u;
const LANES: u32 = 256u; // a power of two
const CENTRES: u32 = 1u; // of a class
const NORMALIZE: bool = true;
const DISTANCES: bool = false; // whether logits are, less than nothing
const ENTROPY: bool = false;

const ROWS: u32 = WORKGROUP / LANES;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32, // of the call
    first_row: u32, // of the chunk
    chunk_rows: u32,
    first_class: u32,
    end_class: u32,
    all_classes: u32, // listed or not
    splits: u32, // of a row
    split_classes: u32, // a multiple of four
    row_products: u32, // from one row of products to the next
    scale: f32,
    bias_start: u32, // starts and strides in elements
    bias_stride: u32,
    sampled_start: u32,
    sampled_stride: u32,
    logits_start: u32,
    logits_rows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(5) var<storage, read_write> row_norms: array<f32>; // [rows], inverse

var<workgroup> found: array<State, WORKGROUP>;

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
    let lane = invocation % LANES;
    let index = workgroup * ROWS + invocation / LANES;
    let own_row = index / params.splits;
    let split = index % params.splits;
    let is_own = own_row < params.chunk_rows;
    let chunk_row = min(own_row, params.chunk_rows - 1u); // past the last, a row is read and not written
    let row = params.first_row + chunk_row;
    let label = targets[row].label;
    var norm = 1.0;
    if (NORMALIZE) {
        norm = row_norms[row];
    }

    // What this invocation meets.
    let begin = params.first_class / 4u * 4u + split * params.split_classes;
    let end = min(begin + params.split_classes, params.end_class);
    var own = NOTHING;
    for (var first = begin + 4u * lane; first < end; first += 4u * LANES) {
        let classes = vec4(first) + vec4(0u, 1u, 2u, 3u);
        let inside = (classes >= vec4(params.first_class)) & (classes < vec4(end));
        let cosines = norm * cosines_of(chunk_row, first);
        let biases = biases_of(first, inside);
        let all = params.scale * logits_over_scale(cosines) + biases;
        let four = select(vec4(0.0), all, inside); // logits
        if (is_own) {
            store_logits(row, first, four, inside);
            if (any(inside & (classes == vec4(label)))) {
                let at = label - first;
                targets[row].cosine = cosines[at];
                targets[row].bias = biases[at];
            }
        }
        own = take_in(own, four, inside & (classes != vec4(label)));
        for (var i = 0u; i < 4u; i++) { // unroll
            if (inside[i]) {
                own = better(own, four[i], first + i);
            }
        }
        if (any((bitcast<vec4<u32>>(four) & vec4(0x7f800000u)) == vec4(0x7f800000u))) {
            own.broken = 1u;
        }
    }

    // What the row has met.
    found[invocation] = own;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            own = both(own, found[invocation + half]);
            found[invocation] = own;
        }
    }
    if (lane == 0u && is_own) {
        let at = split * params.rows + row;
        states[at] = both(states[at], own);
    }
}

fn logits_over_scale(cosines: vec4<f32>) -> vec4<f32> {
    if (DISTANCES) {
        let squares = vec4(1.0) - cosines;
        return -sqrt(select(squares, vec4(0.0), squares < vec4(0.0)));
    }
    return cosines;
}

// The state with the logits of four classes, as far as they are others than the target.
fn take_in(before: State, logits: vec4<f32>, others: vec4<bool>) -> State {
    let seen = select(vec4(LOWEST), max(logits, vec4(LOWEST)), others);
    var own = rebased(before, max(before.largest, max(max(seen.x, seen.y), max(seen.z, seen.w))));
    let below = select(vec4(0.0), seen - own.largest, others);
    let terms = select(vec4(0.0), exp(below), others);
    let ones = select(vec4(0.0), vec4(1.0), others);
    own.sum += dot(terms, vec4(1.0));
    if (ENTROPY) {
        own.weighted += dot(terms, below);
    }
    own.below -= dot(below, vec4(1.0));
    own.count += dot(ones, vec4(1.0));
    return own;
}
