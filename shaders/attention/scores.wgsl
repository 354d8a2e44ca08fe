// What becomes of a score before the softmax: scale, softcap, bias, mask. A vec4 holds a number for each of four rows.
struct Scored {
    s: vec4<f32>,
    see: vec4<bool>, // which rows see the key
}

// The scale of each row, from its number of visible keys where LOG_N.
fn row_scales(rows: Rows) -> vec4<f32> {
    if (!LOG_N) {
        return row_scale_of(rows) * params.scale;
    }
    let n = max(visible_keys(rows), vec4(params.scale_floor));
    return params.scale * max(log(vec4<f32>(n)), vec4(params.scale_least));
}

// Adds the bias of key j to a score of each row, and says which rows see the key; the others' scores become HIDDEN.
fn bias_and_mask(rows: Rows, s: vec4<f32>, j: u32) -> Scored {
    return bias_and_mask_of(rows, s, vec4(j));
}

// The same where each has a key of its own.
fn bias_and_mask_of(rows: Rows, s: vec4<f32>, j: vec4<u32>) -> Scored {
    var see = (vec4<i32>(j) >= rows.lo) & (vec4<i32>(j) < rows.hi);
    see = see & mask_at(rows, j, see);
    var score = s;
    see = see & add_bias(&score, rows, j, see);
    return Scored(select(vec4(HIDDEN), score, see), see);
}

// cap * tanh(s / cap). WGSL promises tanh only to 1e-5: a series near 0, and exp elsewhere.
fn softcap(s: vec4<f32>) -> vec4<f32> {
    let x = s / params.softcap;
    let x2 = x * x;
    let series = x * (1.0 + x2 * (-1.0 / 3.0 + x2 * (2.0 / 15.0 + x2 * (-17.0 / 315.0 + x2 * (62.0 / 2835.0)))));
    let t = exp(-2.0 * abs(x));
    return params.softcap * select(sign(x) * (1.0 - t) / (1.0 + t), series, abs(x) < vec4(0.3));
}
