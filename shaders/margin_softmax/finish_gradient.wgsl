// From sums of gradients to the gradients of rows: through their norms, and in the type in which they are stored.
//
// LANES invocations own a row. With x̂ a normalised row and a the gradient of that, what is wanted is (a - x̂ (x̂ · a)) / |x|, or a
// itself. Sums of features are a, those of class weights a / |x|.
// Workgroup memory: 8 * WORKGROUP bytes. Features: none.
const WORKGROUP: u32 = 64u;
const LANES: u32 = 16u; // a power of two
const NORMALIZE: bool = true;
const THROUGH: bool = true; // whether through the norm
const DIVIDED: bool = true; // whether sums are divided by the norm
alias Elem = vec4<f32>; // f32 where a row of x starts or ends off a multiple of four

const ROWS: u32 = WORKGROUP / LANES;
const NAN: u32 = 0x7fc00000u;
const ELSEWHERE: u32 = 0xffffffffu;

struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    count: u32, // rows
    dim: u32,
    chunks: u32, // ceil(dim / 4)
    x_start: u32, // in elements
    x_row: u32,
    gradient_start: u32,
    gradient_row: u32,
    first_row: u32, // of features, among those of row_gradients
    centres: u32,
    tensor_first: u32, // the classes of the gradient's tensor, where they are listed
    tensor_classes: u32,
    sampled_start: u32,
    sampled_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Elem>; // [count, dim]
@group(0) @binding(3) var<storage, read_write> sums: array<vec4<f32>>; // [count, chunks]

var<workgroup> parts: array<vec2<f32>, WORKGROUP>; // x · x, x · sums

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
    let own_row = workgroup * ROWS + invocation / LANES;
    let row = min(own_row, params.count - 1u); // past the last, a row is read and not written
    let base = params.x_start + row * params.x_row;
    let at = row_of(row);
    let is_own = own_row < params.count && at != ELSEWHERE;

    // The row's norm, and how much of the sum lies along it.
    var own = vec2(0.0);
    if (NORMALIZE) {
        for (var chunk = lane; chunk < params.chunks; chunk += LANES) {
            let four = load_four(base, 4u * chunk);
            own += vec2(dot(four, four), dot(four, sums[row * params.chunks + chunk]));
        }
        parts[invocation] = own;
        for (var half = LANES / 2u; half > 0u; half /= 2u) {
            workgroupBarrier();
            if (lane < half) {
                own += parts[invocation + half];
                parts[invocation] = own;
            }
        }
        workgroupBarrier();
        own = parts[invocation / LANES * LANES];
    }
    let is_number = (bitcast<u32>(own.x) & 0x7f800000u) != 0x7f800000u;
    let usable = is_number && own.x > 0.0;
    let inverse = inverseSqrt(select(1.0, own.x, usable));
    let along = own.y * inverse;
    let broken = is_broken(row);
    let nan = bitcast<f32>(select(0u, NAN, broken));

    for (var chunk = lane; is_own && chunk < params.chunks; chunk += LANES) {
        var four = sums[row * params.chunks + chunk];
        if (NORMALIZE) {
            var through = four;
            if (THROUGH) {
                through -= load_four(base, 4u * chunk) * inverse * along;
                if (!DIVIDED) {
                    through *= inverse;
                }
            } else if (DIVIDED) {
                through *= own.x * inverse;
            }
            // A row without a norm has no gradient; one that is NaN has none either, or only such.
            four = select(select(vec4(0.0), four, !is_number), through, usable);
        }
        store_gradient(params.gradient_start + at * params.gradient_row, 4u * chunk, select(four, vec4(nan), broken));
    }
}
