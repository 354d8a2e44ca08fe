// The scores of four columns, and which of them take part.
struct Scores {
    see: vec4<bool>, // which classes take part
    value: vec4<f32>, // 0 where they do not
    bad: u32,
}

// Logit plus noise of four columns.
fn scores(row: Row, chunk: u32) -> Scores {
    let logits = load_logits(params.logits_start + row.index * params.logits_rows, chunk);
    let bits = bitcast<vec4<u32>>(logits);
    // Minus infinity hides its class as a mask does; what else has the highest exponent is NaN or plus infinity.
    let visible = in_row(chunk) & mask4(row.index, chunk) & (bits != vec4(0xff800000u));
    let numbers = (bits & vec4(0x7fffffffu)) < vec4(0x7f800000u);
    let see = visible & numbers & keeps(row, bits, chunk);
    let value = select(vec4(0.0), select(vec4(0.0), logits, see) + gumbel4(row, chunk), see);
    return Scores(see, value, select(0u, NAN, any(visible & !numbers)));
}
