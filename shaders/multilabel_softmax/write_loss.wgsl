// What becomes of a row's sums: its loss, and the two logarithms.
@group(0) @binding(5) var<storage, read_write> loss: array<u32>; // [rows], f32

fn write(row: u32, part: u32, all: Sums) {
    let lse = vec2(log_with_1(all.largest.x, all.sum.x), log_with_1(all.largest.y, all.sum.y));
    loss[params.loss_start + row * params.loss_stride] = select(bitcast<u32>(lse.x + lse.y), NAN, all.broken);
    write_lse(row, select(bitcast<vec2<u32>>(lse), vec2(NAN), all.broken));
}

// log(1 + sum * exp(largest)), small ones to their own last place, which `log` would not give.
fn log_with_1(largest: f32, sum: f32) -> f32 {
    let total = sum * exp(min(largest, 80.0)); // with no weight below 2^-115, more than 0.5 where that cuts anything off
    if (total >= 0.5) {
        return largest + log(sum + exp(-largest));
    }
    let y = total / (2.0 + total); // log(1 + total) is twice its inverse hyperbolic tangent
    let z = y * y;
    return 2.0 * y * (1.0 + z * (1.0 / 3.0 + z * (1.0 / 5.0 + z * (1.0 / 7.0 + z * (1.0 / 9.0)))));
}
