// From the products of a chunk of rows and classes to the gradients of these products, in their place.
//
// One invocation owns a class in WALKED rows; neighbours own neighbouring classes. Products are of normalised features and of class
// weights as they are, so what is left is divided by the norms of the latter. Of several centres, the nearest has the gradient.
// Workgroup memory: none. Features: none.
const WORKGROUP: u32 = 64u;
const WALKED: u32 = 16u;
const CENTRES: u32 = 1u; // of a class
const NORMALIZE: bool = true;
const FORM: u32 = 0u; // of the margin, by the numbers of margin.wgsl
const TIMES: u32 = 1u; // what the angle is multiplied by
const GIVEN: bool = false; // whether a tensor holds the margins
const ANGLE: bool = false; // whether they are angles

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    first_row: u32, // of the chunk, among those of row_gradients
    chunk_rows: u32,
    first_class: u32,
    chunk_classes: u32,
    all_classes: u32, // listed or not
    class_groups: u32, // ceil(chunk_classes / WORKGROUP)
    row_products: u32, // from one row of products to the next
    scale: f32,
    bias_start: u32, // starts and strides in elements
    bias_stride: u32,
    sampled_start: u32,
    sampled_stride: u32,
    off: f32, // taken off the cosine
    cosine: f32, // of the margin's angle
    sine: f32,
    fall: f32, // the angle times its sine
    end_1: f32, // cosines that part the angles
    end_2: f32,
    end_3: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read_write> products: array<f32>; // [chunk_rows, row_products]
@group(0) @binding(4) var<storage, read_write> class_norms: array<f32>; // [row_products], inverse

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let workgroup = workgroup_index(workgroup_id, num_workgroups);
    let own_class = workgroup % params.class_groups * WORKGROUP + invocation;
    if (workgroup >= params.end_workgroup || own_class >= params.chunk_classes) {
        return;
    }
    let number = params.first_class + own_class;
    let own_bias = biases_of(number, vec4(true, false, false, false)).x;
    let begin = workgroup / params.class_groups * WALKED;
    let end = min(begin + WALKED, params.chunk_rows);
    var sum = 0.0;
    for (var row = begin; row < end; row++) {
        let of_row = row_gradients[params.first_row + row];

        // The nearest centre.
        let at = row * params.row_products + own_class * CENTRES;
        var nearest = 0u;
        var c = products[at] * norm_of(own_class * CENTRES);
        for (var i = 1u; i < CENTRES; i++) {
            let other = products[at + i] * norm_of(own_class * CENTRES + i);
            nearest = select(nearest, i, other > c);
            c = max(c, other);
        }

        // The gradient of the logit, and that of the cosine.
        var of_logit = of_row.own;
        var slope = 1.0;
        if (of_row.label == number) {
            slope = with_margin(c, turn_of(of_row.margin)).y;
        } else {
            let plain = without_margin(c);
            slope = plain.y;
            let nats = params.scale * plain.x + own_bias - of_row.lse;
            of_logit = exp(nats) * (of_row.all + of_row.mixed * nats) - of_row.spread;
        }
        // What a row that is not whole has in its place may be NaN.
        of_logit = select(0.0, of_logit, of_row.kind == WHOLE);
        sum += of_logit;
        let of_product = params.scale * of_logit * slope * norm_of(own_class * CENTRES + nearest);
        for (var i = 0u; i < CENTRES; i++) {
            products[at + i] = select(0.0, of_product, of_row.kind == WHOLE && i == nearest);
        }
    }
    store_bias_sum(workgroup / params.class_groups, own_class, sum);
}

fn norm_of(index: u32) -> f32 {
    if (NORMALIZE) {
        return class_norms[index];
    }
    return 1.0;
}
