// What the sum of a row's weighted values is divided by; n is its number of visible keys, `sum` that of its weights.
const DIVIDE_BY_NONE: u32 = 0u; // the scale holds it
const DIVIDE_BY_FIXED: u32 = 1u; // params.divisor
const DIVIDE_BY_LEN: u32 = 2u; // n * params.divisor
const DIVIDE_BY_LEN_SQUARED: u32 = 3u; // n * n
const DIVIDE_BY_SUM: u32 = 4u; // sum + params.divisor

fn row_divisor(n: f32, sum: f32) -> f32 {
    var divisor = 1.0;
    switch (DIVISOR) {
        case DIVIDE_BY_FIXED: { divisor = params.divisor; }
        case DIVIDE_BY_LEN: { divisor = n * params.divisor; }
        case DIVIDE_BY_LEN_SQUARED: { divisor = n * n; }
        case DIVIDE_BY_SUM: { divisor = sum + params.divisor; }
        default: {}
    }
    // A row that sees no key is 0 whatever divides it.
    return select(divisor, 1.0, n == 0.0);
}
