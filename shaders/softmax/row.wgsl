// What the statistics of a row say of it.
struct Row {
    is_empty: bool, // no column is seen
    is_broken: bool, // a score is no number
    largest: f32, // score
    inverse: f32, // 1 / the sum of exp(s - largest)
    log_sum: f32,
    entropy: f32, // nats
}

// The sum is at most the number of columns, unless NaN is in it, of which some drivers' exp makes an infinity: then all is NaN.
fn row_of(own: Statistics) -> Row {
    let is_empty = own.sum == 0.0;
    let is_broken = (bitcast<u32>(own.sum) & 0x7f800000u) == 0x7f800000u;
    let nan = not_a_number();
    let sum = select(own.sum, 1.0, is_empty || is_broken);
    let inverse = select(1.0 / sum, nan, is_broken);
    let log_sum = select(log(sum), nan, is_broken);
    let nats = log_sum - own.weighted * inverse;
    return Row(is_empty, is_broken, own.largest, inverse, log_sum, nats - min(nats, 0.0)); // NaN stays, which max might drop
}
