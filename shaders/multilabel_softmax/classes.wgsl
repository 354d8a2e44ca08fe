// Four classes of a row: scores above their thresholds, and the weights that labels give them.
//
// Whatever is not a number is told by its bits, and no arithmetic meets it, nor an infinity.
const LARGEST: u32 = 0x7cf0bdc2u; // 1e37, beyond which scores and thresholds count as this
const INFINITY: u32 = 0x7f800000u;
const ONE: u32 = 0x3f800000u;
const MINUS_ZERO: u32 = 0x80000000u;
const LEAST_LABEL: u32 = 0x06000000u; // 2^-115, below which a label counts as 0

struct Classes {
    taking_part: vec4<bool>,
    x: vec4<f32>, // score - threshold; 0 where the class takes no part, as are the weights
    positive: vec4<f32>, // weight of exp(-x)
    negative: vec4<f32>, // weight of exp(x)
    no_score: vec4<bool>, // score or threshold is NaN, and the class takes part
    no_label: vec4<bool>, // the label is none, and the class takes part
}

fn classes_at(row: u32, chunk: u32) -> Classes {
    var own: Classes;
    let inside = vec4(4u * chunk) + vec4(0u, 1u, 2u, 3u) < vec4(params.classes);
    own.taking_part = mask_at(row, chunk, inside);
    let score = load_scores(row, chunk);
    let threshold = load_threshold(chunk);
    let label = load_labels(row, chunk);
    let bits = bitcast<vec4<u32>>(label);
    own.no_score = own.taking_part & (is_nan(score) | is_nan(threshold));
    own.no_label = own.taking_part & (bits > vec4(ONE)) & (bits != vec4(MINUS_ZERO));
    own.x = select(vec4(0.0), bounded(score) - bounded(threshold), own.taking_part);
    let weighted = own.taking_part & !own.no_label;
    let counted = select(vec4(0.0), label, weighted & (bits >= vec4(LEAST_LABEL)) & (bits != vec4(MINUS_ZERO)));
    own.positive = counted;
    own.negative = select(vec4(0.0), vec4(1.0) - counted, weighted);
    return own;
}

fn is_nan(x: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & vec4(0x7fffffffu)) > vec4(INFINITY);
}

fn bounded(x: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(x);
    return bitcast<vec4<f32>>((bits & vec4(MINUS_ZERO)) | min(bits & vec4(0x7fffffffu), vec4(LARGEST)));
}
